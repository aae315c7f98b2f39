"""Do the shipped adapters do what they are for? Edges followed, things recognised, a pencil used, calls shared.

    perrin train image/emoji --dry-run 1          # fetches the data, once
    python benchmarks/image/bench_adapters.py [edge] [like] [pencil] [shared]

Held-out pictures of the default style, one seed each, default settings, their first caption as the prompt. ``edge``:
F1 between the edges of the result and those given, one pixel of slack; with scribbles made of them too. ``like``: the
nearest of the data's pictures (colour over white, 16x16) shows the same thing. ``pencil``: how far colours are from
those between its ink and its paper, and whether the thing is recognised among such drawings. ``shared``: seconds of
eight requests in one batch, by how many have an adapter.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track

import perrin
from perrin.settings import Settings
from perrin_image.control import edges
from perrin_image.data.pencil import INK, PAPER
from perrin_image.training.control import agreement, scribbled
from perrin_image.training.dataset import Pictures, load_pictures
from perrin_image.training.like import Nearest

COUNT = 48
Pixels = npt.NDArray[np.uint8]


def main() -> None:
    """Measure and print."""
    wanted = sys.argv[1:] or ["edge", "like", "pencil", "shared"]
    generate = perrin.load("image", device="cpu")
    folder = Settings().home_path / "data" / "image"
    pictures = load_pictures(folder, lambda done, total, label: None)
    if "edge" in wanted:
        edge(generate, pictures)
    if "like" in wanted:
        like(generate, pictures)
    if "pencil" in wanted:
        pencil(generate, load_pictures(folder, lambda done, total, label: None, data={"pencil": True}))
    if "shared" in wanted:
        shared(generate)


def chosen(pictures: Pictures, fit: set[str] | None = None) -> Iterator[tuple[Pixels, str, str]]:
    """Held-out pictures of the default style with a caption and what they show."""
    rows = [i for i in pictures.held_out if pictures.records[i].style == "noto" and not pictures.records[i].recoloured]
    rows = [i for i in rows if fit is None or pictures.records[i].group in fit]
    for i in track(rows[:: max(1, len(rows) // COUNT)][:COUNT], transient=True):
        yield np.array(pictures.pixels[i]), pictures.records[i].captions[0], pictures.records[i].group


def png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def opaque(picture: Pixels) -> Pixels:
    return np.concatenate([picture[..., :3], np.full_like(picture[..., :1], 255)], -1)


def edge(generate: perrin.Generator, pictures: Pictures) -> None:
    """F1 with and without."""
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for pixels, caption, _ in chosen(pictures):
        lines = edges(pixels[None])
        drawn = scribbled(torch.from_numpy(lines).float(), rng).numpy() > 0
        asked: dict[str, dict[str, Any]] = {"without": {}}
        for kind, given in (("edge", lines), ("scribble", drawn)):
            control = {kind: png(255 * (~given[0]).astype(np.uint8))}
            asked |= {f"{kind} at {s}": {"control": control, "control_strength": s} for s in (0.5, 1.0, 1.5)}
        for name, values in asked.items():
            made = opaque(generate(caption, seed=7, **values)[0].value)
            found.setdefault(name, []).append(float(agreement(edges(made[None]), lines)[0]))
    print("edges: F1 " + "  ".join(f"{name} {np.mean(values):.3f}" for name, values in found.items()))


def like(generate: perrin.Generator, pictures: Pictures) -> None:
    """Recognised with the picture alone, with the prompt, with both."""
    known = Nearest(pictures, [i for i, record in enumerate(pictures.records) if not record.recoloured])
    things = {pictures.records[i].group for i in pictures.train}
    hits: dict[str, list[tuple[bool, bool]]] = {"like": [], "prompt": [], "both": []}
    chance = []
    for pixels, caption, group in chosen(pictures, things):
        given = {"like": png(pixels)}
        for name, prompt, values in (("like", None, given), ("prompt", caption, {}), ("both", caption, given)):
            made = opaque(generate(prompt, seed=7, **values)[0].value)
            hits[name].append(known.recognises(made, group))
        chance.append(known.chance(group))
    rows = {name: np.mean(values, axis=0) for name, values in hits.items()}
    said = "  ".join(f"{name} {one:.2f} (of five {five:.2f})" for name, (one, five) in rows.items())
    print(f"like: recognised {said}  chance {np.mean(chance):.4f}")


def pencil(generate: perrin.Generator, pictures: Pictures) -> None:
    """How far colours are from those between ink and paper, by weight; and whether the thing is recognised."""
    known = Nearest(pictures, range(len(pictures.records)))
    between = np.linspace(INK, PAPER, 64)
    for weight in (0.0, 0.5, 1.0):
        hits, far = [], []
        for _, caption, group in chosen(pictures):
            made = generate(caption, seed=7, lora=[f"emoji-64-pencil:{weight}"])[0].value
            apart = np.linalg.norm(made.reshape(-1, 1, 3) - between, axis=-1)
            far.append(apart.min(-1).mean())
            hits.append(known.recognises(opaque(made), group))
        one, five = np.mean(hits, axis=0)
        print(
            f"pencil at {weight}: {np.mean(far):.0f} of 255 off its colours, recognised {one:.2f}, of five {five:.2f}"
        )


def shared(generate: perrin.Generator) -> None:
    """Seconds of eight requests together."""
    for many in (0, 1, 4, 8):
        asked = [{"prompt": "a dog", "seed": n, "lora": ["emoji-64-pencil"] if n < many else []} for n in range(8)]
        times = []
        for _ in range(5):
            began = time.perf_counter()
            generate(asked, steps=16, sampler="dpmpp_2m")
            times.append(time.perf_counter() - began)
        print(f"eight requests, {many} with an adapter: median {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
