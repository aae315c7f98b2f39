"""How good a model of shapes is: sets of shapes against real ones, classes, closed surfaces, novelty, time.

    perrin train shape/judge                     # the judge of classes, once: fifteen minutes
    python benchmarks/shape/bench_shapes.py [MODEL] [--count 64] [--points 512] [--out FOLDER]

Real shapes that no model here was trained on are parted in two halves. For each shape of the second, one is made from
its caption, seed 7 and on, at the model's defaults; the first half is what sets are compared with. The floor is the
second half itself, against the first, by the same computation and of the same number.

- 1-NNA (a half is ideal), coverage, minimum matching distance, with the Chamfer distance (sum of the mean squared
  nearest distances) and the exact earth mover's distance (mean length, one to one). Every cloud is centred at the mean
  of its points, the farthest at distance one.
- Class: the judge's first choice, of shapes whose caption names a class.
- Closed: the share of meshes that are watertight and near their cloud, see perrin_shape.metrics.meshes.
- Novelty: Chamfer distance to the nearest shape trained on; the share of made ones nearer than all but one in a hundred
  of real ones.
- Captions that were held out before training: classes of these alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

import perrin
from perrin.errors import Degenerate, JobFailed
from perrin.models import find
from perrin.models.weights import load_network
from perrin.settings import Settings
from perrin_shape.captions import CLASSES, class_of
from perrin_shape.cloud import Cloud
from perrin_shape.data.recipe import held_captions
from perrin_shape.metrics.distances import chamfers, emds
from perrin_shape.metrics.judge import Judge
from perrin_shape.metrics.meshes import Closed, closed_share, surfaces
from perrin_shape.metrics.novelty import Nearest, copied, nearest_of
from perrin_shape.metrics.sets import Scores, scores
from perrin_shape.pictures import preview
from perrin_shape.reading import centred
from perrin_shape.surface import reconstruct
from perrin_shape.training.data import Shapes

SEED = 7
JUDGED = 768
SURFACE = 2048
NOVEL = 512
ATTEMPTS = 20


def quiet(*_: object) -> None:
    """Nobody is told."""


def real_cloud(shapes: Shapes, number: int, count: int) -> Cloud:
    arrays = shapes.pack.arrays
    chosen = np.random.default_rng(number).permutation(arrays["points"].shape[1])[:count]
    points = arrays["points"][number][chosen].astype(np.float32)
    normals = arrays["normals"][number][chosen].astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    return centred(Cloud(points, normals, arrays["colours"][number][chosen]))


def few(cloud: Cloud, count: int) -> Tensor:
    """``count`` of its points, by chance, (count, 3)."""
    chosen = np.random.default_rng(0).permutation(len(cloud))[:count]
    return torch.from_numpy(centred(Cloud(cloud.points[chosen])).points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="bricks-and-furniture")
    parser.add_argument("--count", type=int, default=64, help="shapes of each half")
    parser.add_argument("--points", type=int, default=512, help="of a cloud where sets are compared")
    parser.add_argument("--judge", default="shapes-judge")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    shapes = Shapes({}, {"data": Settings().home / "data"})
    shapes.prepare(quiet)
    kept = np.random.default_rng(SEED).permutation(np.concatenate([shapes.validation, shapes.unseen]))
    count = min(asked.count, len(kept) // 2)
    reference, second = kept[:count], kept[count : 2 * count]
    captions = [shapes.pack.records[i].captions[1] for i in second]

    generate = perrin.load("shape", model=asked.model, device="cpu")
    made, took = made_of(generate, captions, "generating")
    real = {name: [real_cloud(shapes, i, 4096) for i in part] for name, part in (("a", reference), ("b", second))}

    print(f"\n{asked.model}: {count} shapes from captions, and {count} real ones in each half")
    print(f"sets of {asked.points} points a cloud; a shape in {took:.1f} s\n")
    found: dict[str, Any] = {"count": count, "points": asked.points, "seconds": took}
    found["sets"] = sets_table(made, real["b"], real["a"], asked.points)
    found["classes"] = classes(shapes, made, captions, second, asked.judge, generate)
    found["closed"] = closed_table(made, real["b"])
    found["novelty"], nearest = novelty_table(shapes, made, real["b"])
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        sheet(shapes, made, captions, second, nearest).save(asked.out / "shapes.png")
        (asked.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n")


def made_of(generate: Any, captions: list[str], what: str) -> tuple[list[Cloud], float]:
    """Shapes, and seconds of each; where a seed ends degenerate the next thousand's is taken, and it is said."""
    made, began, failed = [], time.monotonic(), []
    for seed, caption in enumerate(track(captions, what)):
        for attempt in range(ATTEMPTS):
            try:
                made.append(centred(generate(caption, seed=SEED + seed + 1000 * attempt)[0].value.cloud))
                break
            except (Degenerate, JobFailed):
                failed.append(caption)
        else:
            raise SystemExit(f"{caption!r} ends degenerate with {ATTEMPTS} seeds")
    if failed:
        print(f"{what}: {len(failed)} degenerate: " + "; ".join(failed))
    return made, (time.monotonic() - began) / len(captions)


def sets_table(made: list[Cloud], floor: list[Cloud], reference: list[Cloud], points: int) -> dict[str, Any]:
    sets = [torch.stack([few(cloud, points) for cloud in part]) for part in (made, floor, reference)]
    print(f"{'':22}{'1-NNA':>8}{'COV':>8}{'MMD':>12}")
    found: dict[str, Any] = {}
    for name, table, unit in (("Chamfer", chamfers, 1e3), ("earth mover's", emds, 1e2)):
        began = time.monotonic()
        among = table(sets[2], sets[2])
        for what, one in (("made", sets[0]), ("real, the floor", sets[1])):
            score: Scores = scores(table(one, one), table(one, sets[2]), among)
            found[f"{name}, {what}"] = score._asdict()
            shown = f"{score.mmd * unit:.2f}e-{round(np.log10(unit))}"
            print(f"{what + ', ' + name:22.22}{score.one_nna:8.3f}{score.coverage:8.3f}{shown:>12}")
        n = len(sets[2])
        each = (time.monotonic() - began) / (2 * n * n + 3 * n * (n - 1) / 2)
        print(f"  {1000 * each:.1f} ms a pair")
        found[f"{name}, ms a pair"] = 1000 * each
    return found


def classes(
    shapes: Shapes, made: list[Cloud], captions: list[str], second: Any, judge: str, generate: Any
) -> dict[str, float]:
    network = load_network(find(judge), "judge", kinds={"judge": Judge})
    held = sorted(held_captions())
    fresh, _ = made_of(generate, held, "held-out captions")
    rows = {
        "made": (made, [CLASSES.index(class_of(caption)) for caption in captions]),
        "real": ([real_cloud(shapes, i, JUDGED) for i in second], [int(shapes.labels[i]) for i in second]),
        "made, captions held out": (fresh, [CLASSES.index(class_of(caption)) for caption in held]),
    }
    found = {}
    print("\nclass, by the judge")
    for name, (clouds, labels) in rows.items():
        pairs = [(c, k) for c, k in zip(clouds, labels, strict=True) if k != CLASSES.index("other")]
        given = torch.stack([judged(cloud) for cloud, _ in pairs])
        with torch.inference_mode():
            said = network(given).argmax(1)
        found[name] = float((said == torch.tensor([k for _, k in pairs])).float().mean())
        print(f"{name:28}{found[name]:8.3f}  of {len(pairs)}")
    return found


def judged(cloud: Cloud) -> Tensor:
    chosen = np.random.default_rng(0).permutation(len(cloud))[:JUDGED]
    if cloud.normals is None:
        raise SystemExit("this model makes no normals, which the judge looks at")
    return torch.from_numpy(np.concatenate([cloud.points[chosen], cloud.normals[chosen]], 1))


def closed_table(made: list[Cloud], real: list[Cloud]) -> dict[str, Any]:
    def thin(cloud: Cloud) -> Cloud:
        chosen = np.random.default_rng(0).permutation(len(cloud))[:SURFACE]
        return Cloud(cloud.points[chosen], None if cloud.normals is None else cloud.normals[chosen])

    began = time.monotonic()
    theirs = surfaces([thin(cloud) for cloud in real])
    ours = surfaces([thin(cloud) for cloud in made])
    each = (time.monotonic() - began) / (len(made) + len(real))
    print(f"\nclosed surfaces of {SURFACE} points, {each:.1f} s each")
    print(f"{'':8}{'counts':>8}{'watertight':>12}{'fallback':>10}{'Chamfer':>12}{'in spacings^2':>15}{'as it is':>10}")
    found = {}
    for name, one in (("made", closed_share(ours, theirs)), ("real", closed_share(theirs, theirs))):
        c: Closed = one
        found[name] = c._asdict()
        print(
            f"{name:8}{c.share:8.3f}{c.watertight:12.3f}{c.fallback:10.3f}{1000 * c.apart:10.2f}e-3{c.relative:15.2f}"
            f"{c.plain:10.3f}"
        )
    return found


def novelty_table(shapes: Shapes, made: list[Cloud], real: list[Cloud]) -> tuple[dict[str, float], Nearest]:
    trained = torch.stack([torch.from_numpy(real_cloud(shapes, int(i), NOVEL).points) for i in shapes.train])
    ours = nearest_of(torch.stack([few(cloud, NOVEL) for cloud in made]), trained)
    theirs = nearest_of(torch.stack([few(cloud, NOVEL) for cloud in real]), trained)
    found = {
        "made": float(np.median(ours.distance)),
        "real": float(np.median(theirs.distance)),
        "copied": copied(ours, theirs),
    }
    print(f"\nnearest of {len(trained)} trained on, Chamfer, {NOVEL} points: median {1000 * found['made']:.2f}e-3 made")
    print(f"{1000 * found['real']:.2f}e-3 real; nearer than 99 in 100 real ones: {found['copied']:.3f}")
    return found, ours


def sheet(shapes: Shapes, made: list[Cloud], captions: list[str], second: Any, nearest: Nearest) -> Image.Image:
    """Rows of what was made, its mesh, the real shape of that caption, and the nearest one trained on."""
    import io

    shown = range(min(24, len(made)))
    side, columns = 128, 6
    page = Image.new("RGB", (columns * side, -(-len(shown) // columns) * 4 * side), "white")
    for place, k in enumerate(shown):
        train = int(shapes.train[nearest.number[k]])
        things = (
            made[k],
            reconstruct(made[k]),
            real_cloud(shapes, int(second[k]), 4096),
            real_cloud(shapes, train, 4096),
        )
        for row, thing in enumerate(things):
            picture = Image.open(io.BytesIO(preview(thing, side)))
            page.paste(picture, (place % columns * side, (place // columns * 4 + row) * side))
    print("the sheet, row by row: " + "; ".join(captions[k] for k in shown))
    return page


if __name__ == "__main__":
    main()
