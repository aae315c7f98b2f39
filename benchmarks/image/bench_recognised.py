"""Does a picture show what was asked for? Measured by its nearest neighbours among the pictures of the data.

    perrin train image/emoji --dry-run 1          # fetches the data, once
    python benchmarks/image/bench_recognised.py [MODEL ...]

The 24 test prompts that are captions as they stand, eight seeds each, default settings. A picture counts as recognised
if the nearest of the data's original pictures (RGB over white, 16x16, Euclidean) has the prompt among its captions, or
one of the nearest five has. The same for real pictures of the prompts, each against all others, is the ceiling. The
distance to the nearest, as a part of the distance between two drawings of one thing, tells copying: 0 is a copy.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from rich.progress import track

import perrin
from perrin.settings import Settings
from perrin_image.data import open_pack, prepare
from perrin_image.training.dataset import prompts

SEEDS = 8
Array = npt.NDArray[np.float32]


def main() -> None:
    """Measure and print."""
    pack = open_pack(prepare(Settings().home_path / "data" / "image", lambda done, total, label: None))
    kept = [i for i, record in enumerate(pack.records) if not record.recoloured]
    known = np.stack([small(pack.pictures[i]) for i in kept])
    captions = [set(pack.records[i].captions) for i in kept]
    wanted = prompts("as_captioned")
    real = {p: [n for n, own in enumerate(captions) if p in own] for p in wanted}
    between = np.mean(
        [np.linalg.norm(known[a] - known[b]) for rows in real.values() for a in rows for b in rows if a < b]
    )

    hits = []
    for prompt, rows in real.items():
        for row in rows:
            near = nearest(known[row], known, without=row)
            hits.append((prompt in captions[near[0]], any(prompt in captions[n] for n in near)))
    one, five = np.mean(hits, axis=0)
    print(f"{'real pictures':20} nearest {one:.2f}  of five {five:.2f}  ({len(hits)} pictures)")

    for name in sys.argv[1:] or [None]:
        generate = perrin.load("image", model=name)
        hits, copies = [], []
        for prompt in track(wanted, generate.card.name, transient=True):
            for item in generate(prompt, seed=7, count=SEEDS):
                made = small(item.value)
                near = nearest(made, known)
                hits.append((prompt in captions[near[0]], any(prompt in captions[n] for n in near)))
                copies.append(np.linalg.norm(made - known[near[0]]) / between)
        one, five = np.mean(hits, axis=0)
        label = f"{generate.card.name} {generate.card.sha256[:8]}"
        print(f"{label:20} nearest {one:.2f}  of five {five:.2f}  ({len(hits)} pictures)", end="  ")
        print(f"distance to the nearest: median {np.median(copies):.2f}, least {min(copies):.2f}")


def small(picture: npt.NDArray[np.uint8]) -> Array:
    """64x64 RGB or RGBA as a vector: over white, averaged over 4x4 pixels, 0 to 1."""
    colour = picture[..., :3].astype(np.float32) / 255
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:].astype(np.float32) / 255
        colour = colour * alpha + 1 - alpha
    return colour.reshape(16, 4, 16, 4, 3).mean((1, 3)).ravel()


def nearest(one: Array, known: Array, without: int = -1) -> list[int]:
    """The five nearest, the nearest first."""
    distance = np.square(known - one).sum(1)
    if without >= 0:
        distance[without] = np.inf
    return [int(n) for n in np.argsort(distance)[:5]]


if __name__ == "__main__":
    main()
