"""A checkpoint through Perrin and through the library that it was made for, in one run, round by round in turn.

The shape is Stable Diffusion's with two fifths of its channels and half of its autoencoder's (random numbers),
128x128, 6 steps of Euler, guidance 7.5, in float32 on one thread. The machine may be shared, so that processor time is
told beside wall time.

    python benchmarks/checkpoints/bench_speed.py FOLDER [--measured] [--jobs]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

SMALLER = {"block_out_channels": (128, 256, 512, 512), "cross_attention_dim": 768}
NARROW = (64, 128, 256, 256)
SIDE, STEPS, GUIDANCE = 128, 6, 7.5
PROMPT = "a red apple in the snow"


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    wall, own = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - own


def pipes(folder: Path, side: str | None = None) -> tuple[Any, Any]:
    """Their pipeline, and the model of ours."""
    sys.path.insert(0, str(Path(__file__).parent))
    from shapes import write

    from perrin.models import models
    from perrin.models.checkpoints import add_checkpoint
    from perrin.models.checkpoints.loading import quietly

    source = write(folder / "sd", "sd", torch.float32, SMALLER, NARROW)
    card = models().get("sd") or add_checkpoint(source)
    if side == "ours":
        return None, card
    with quietly():
        pipe = importlib.import_module("diffusers").StableDiffusionPipeline.from_pretrained(source)
    pipe.set_progress_bar_config(disable=True)
    return pipe, card


def theirs(pipe: Any, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        pipe(
            PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=SIDE, width=SIDE, generator=draws,
            output_type="np",
        )  # fmt: skip


class Ours:
    """The model's runtime, asked as the engine asks it; with nothing kept from one picture to the next."""

    def __init__(self, card: Any, keep: bool = False) -> None:
        from perrin import plugins

        self.face = plugins.modality("image")
        self.runtime: Any = plugins.runtime(self.face).load(card, "cpu")
        self.card, self.keep = card, keep

    def __call__(self, seed: int) -> None:
        from perrin.modality import validate

        if not self.keep:
            self.runtime._beside._pipeline.forget()
        asked = {"prompt": PROMPT, "steps": STEPS, "guidance": GUIDANCE, "size": SIDE, "seed": seed}
        p = validate(self.face, {"model": self.card.name, **asked}).resolved(self.card)
        run = self.runtime.start(p)
        list(self.runtime.decode(run.run(), p))


def compare(a: Callable[[int], None], b: Callable[[int], None], rounds: int) -> dict[str, Any]:
    """Wall and processor seconds of each, by turns; and the median of their ratios, b to a."""
    for run in (a, b):
        run(0)
    first, second = [], []
    for number in range(rounds):
        order = ((a, first), (b, second))
        for run, kept in order if number % 2 else reversed(order):
            kept.append(timed(partial(run, number)))
    ratios = [(y[0] / x[0], y[1] / x[1]) for x, y in zip(first, second, strict=True)]
    return {
        "theirs": {"wall": median(x[0] for x in first), "processor": median(x[1] for x in first)},
        "ours": {"wall": median(x[0] for x in second), "processor": median(x[1] for x in second)},
        "ratio": {"wall": median(r[0] for r in ratios), "processor": median(r[1] for r in ratios)},
        "rounds": rounds,
    }


def peak(folder: Path, side: str) -> float:
    """GiB that a process takes at most that does nothing but this."""
    command = [sys.executable, __file__, str(folder), "--only", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measured", action="store_true")
    parser.add_argument("--jobs", action="store_true")
    parser.add_argument("--only", choices=("theirs", "ours"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["PERRIN_HOME"] = str(options.folder / ("measured" if options.measured else "plain"))
    torch.set_num_threads(1)
    pipe, card = pipes(options.folder, options.only)
    if options.only:
        (lambda: theirs(pipe, 0))() if options.only == "theirs" else Ours(card)(0)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    if options.jobs:
        found = jobs(pipe, card)
    elif options.measured:
        module = importlib.import_module("perrin.models.checkpoints.pipelines")
        chosen = module.measured(card, "cpu", (SIDE, SIDE), False, print)
        found = compare(lambda seed: theirs(pipe, seed), Ours(card, keep=True), options.rounds)
        found["settings"] = chosen.model_dump()
    else:
        found = compare(lambda seed: theirs(pipe, seed), Ours(card), options.rounds)
        found["peak_gib"] = {side: peak(options.folder, side) for side in ("theirs", "ours")}
    print(json.dumps(found, indent=1))


def jobs(pipe: Any, card: Any, count: int = 8) -> dict[str, Any]:
    """Eight at once through the engine against eight in a row through theirs."""
    import perrin

    generate = perrin.load("image", model=card.name, device="cpu")
    generate(PROMPT, steps=2, size=SIDE, guidance=GUIDANCE)
    theirs(pipe, 0)
    entries = [{"prompt": PROMPT, "seed": seed} for seed in range(count)]
    rows, together = [], []
    for _ in range(2):
        rows.append(timed(lambda: [theirs(pipe, seed) for seed in range(count)]))
        together.append(timed(lambda: generate(entries, steps=STEPS, size=SIDE, guidance=GUIDANCE)))
    return {
        "in a row": {"wall": median(x[0] for x in rows), "processor": median(x[1] for x in rows)},
        "at once": {"wall": median(x[0] for x in together), "processor": median(x[1] for x in together)},
        "jobs": count,
    }


if __name__ == "__main__":
    main()
