"""How good a model's pictures are: distance to real ones, captions recognised, copies of what it was trained on.

    perrin train image/captions                   # the judge of captions, once: a quarter of an hour
    python benchmarks/image/bench_scores.py [MODEL] [--pictures 1000] [--out FOLDER]
    python benchmarks/image/bench_scores.py --pictures 250 --guidance 1 2 3 4 5 --sampler calibrated:8 dpmpp_2m:20

One picture for each of 1,000 captions (or so many of them, evenly), in the style of the picture that has the caption,
seed 7 and on. Beside it, by the same computation, real pictures: those that have these captions.

- Frechet and kernel distance (x 1000, mean and deviation over subsets) in features of EfficientNet-Lite0, not in
  Inception's, to as many other real pictures, of the same styles. The line of the real pictures is the floor.
- Caption: of the 1,000, the own one comes first, or among the first five, by the judge of `perrin_image.metrics`. All
  1,000 are of pictures that the judge has not seen; "fresh" are those of them that no model is trained on either.
- Copies: pictures that are nearer to one of training than 95% of held-out pictures are, all of them (not the generated
  ones) as the model's autoencoder gives them back, whose own errors are larger than many such distances. The line of
  copies is pictures of training after a second time through it: the share of them that a column finds says what that
  column is worth. The worst pairs are drawn.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from real import Real, judge, real_pictures, worn
from rich.progress import track
from torch import Tensor

import perrin
from perrin.metrics.distances import frechet, kernel
from perrin.models import ModelCard
from perrin.pictures import Pixels, grid_of, to_pixels
from perrin_image.metrics.captions import CaptionNetwork, Ranks, ranks, sentences
from perrin_image.metrics.copies import Copies, copies
from perrin_image.metrics.features import NAME, Features
from perrin_image.metrics.known import autoencoder, small, through

SEED, TOGETHER, WORST, NONE = 7, 16, 12, "-"
HEAD = (
    f"{'':34}{'Frechet':>8} {'kernel x1000':>14} {'caption 1 / 5':>14} {'fresh 1 / 5':>14} "
    f"{'copies: features':>17} {'pixels':>7}"
)


class Bench:
    """Scores sets of pictures, one for each of ``numbers``, which count the captions asked for."""

    def __init__(self, real: Real, network: CaptionNetwork | None, count: int, card: ModelCard) -> None:
        self.real, self.network, self.features = real, network, Features()
        self.numbers = np.linspace(0, len(real.asked) - 1, min(count, len(real.asked))).round().astype(int).tolist()
        self.asked = [real.asked[n] for n in self.numbers]
        self.said = sentences([real.pictures.records[i].captions[0] for i in real.asked])
        self.others = real.features[[real.others[n] for n in self.numbers]]
        worn_ones = worn(real.pictures, card)
        self.held = tuple(each[real.pictures.held_out] for each in worn_ones)
        self.trained = tuple(each[real.pictures.train] for each in worn_ones)

    def line(self, title: str, x: Tensor, features: Tensor | None = None, captions: bool = True) -> tuple[Copies, ...]:
        """Print one line of the table; the copies found, in features and in pixels."""
        features = self.features.of(x) if features is None else features
        distance = kernel(features, self.others, size=min(500, len(x) // 2))
        far = f"{frechet(features, self.others):8.2f} {1e3 * distance.mean:8.2f} ±{1e3 * distance.spread:4.1f}"
        said = self.recognised(features) if captions else (NONE, NONE)
        found = tuple(copies(*three) for three in zip((features, small(x)), self.held, self.trained, strict=True))
        near = f"{found[0].share:17.3f} {found[1].share:7.3f}"
        print(f"{title:34}{far} {said[0]:>14} {said[1]:>14} {near}", flush=True)
        return found

    def recognised(self, features: Tensor) -> tuple[str, str]:
        """How often the own caption comes first, and among five: of all pictures, and of the fresh ones."""
        fresh = [n for n, index in enumerate(self.asked) if self.real.fresh(index)]
        if self.network is None or not fresh:
            return NONE, NONE
        own = [self.numbers[n] for n in fresh]
        return _said(ranks(self.network, features, self.said, self.numbers)), _said(
            ranks(self.network, features[fresh], self.said, own)
        )


def _said(found: Ranks) -> str:
    return f"{found.one:.3f} / {found.five:.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--guidance", type=float, nargs="*", default=[None], help="by default the model's")
    parser.add_argument("--sampler", nargs="*", default=[None], help="SAMPLER:STEPS; by default the model's")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for what is drawn, and copies-*.png")
    asked = parser.parse_args()
    network, known = judge()
    real, generate = real_pictures(), perrin.load("image", model=asked.model)
    bench = Bench(real, network, asked.pictures, generate.card)
    print(f"{generate.card.name} {generate.card.sha256[:12]}; {len(bench.asked)} pictures, seed {SEED} and on")
    print(f"features: {NAME}\njudge: {known}")
    _facts(bench)
    print(HEAD)
    bench.line("real pictures of the captions", real.tensor(bench.asked), real.features[bench.asked])
    codec = autoencoder(generate.card)
    bench.line("the same, through the autoencoder", through(codec, real.tensor(bench.asked)))
    chosen = np.random.default_rng(1).choice(real.pictures.train, len(bench.asked), replace=False)
    twice = through(codec, through(codec, real.tensor(chosen)))
    bench.line("copies of pictures of training", twice, captions=False)
    for sampler, guidance in itertools.product(asked.sampler, asked.guidance):
        options, title = _options(sampler, guidance)
        x = _made(generate, bench, options, title, asked.out)
        _draw(bench, x, bench.line(title, x), asked.out / f"copies-{title.replace(' ', '-')}.png")


def _facts(bench: Bench) -> None:
    for space, held, trained in zip(("features", "pixels 16x16"), bench.held, bench.trained, strict=True):
        found = copies(held, held, trained)
        print(
            f"held-out pictures to the nearest of {len(trained)} of training, {space}: median {found.real_median:.2f}; "
            f"a near copy is below {found.threshold:.2f} ({found.share:.1%} of {len(held)} held-out ones are)"
        )


def _options(sampler: str | None, guidance: float | None) -> tuple[dict[str, object], str]:
    name, _, steps = (sampler or "").partition(":")
    options: dict[str, object] = {"sampler": name, "steps": int(steps)} if sampler else {}
    title = f"{name} {steps}" if sampler else "defaults"
    if guidance is not None:
        options["guidance"], title = guidance, f"{title}, guidance {guidance:g}"
    return options, title


def _made(generate: perrin.Generator, bench: Bench, options: dict[str, object], title: str, out: Path) -> Tensor:
    records = [bench.real.pictures.records[i] for i in bench.asked]
    wanted = [
        {"prompt": record.captions[0], "style": record.style, "seed": SEED + number, **options}
        for number, record in zip(bench.numbers, records, strict=True)
    ]
    key = hashlib.sha256(f"{generate.card.sha256} {generate.card.preferred} {wanted}".encode()).hexdigest()[:16]
    path = out / f"made-{key}.npy"
    if not path.exists():
        pixels: list[Pixels] = []
        for begin in track(range(0, len(wanted), TOGETHER), title, transient=True):
            pixels += [results[0].value for results in generate(wanted[begin : begin + TOGETHER])]
        out.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack(pixels))
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _draw(bench: Bench, x: Tensor, found: tuple[Copies, ...], path: Path) -> None:
    """Six pairs a row, the worst first: a generated picture, its nearest of training; features above, pixels below."""
    pairs = []
    for one in found:
        for worst in one.worst(WORST):
            near = bench.real.tensor([int(bench.real.pictures.train[int(one.neighbour[worst])])])[0]
            pairs += [x[worst, :3], near[:3]]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.fromarray(grid_of(to_pixels(torch.stack(pairs)), columns=12))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
