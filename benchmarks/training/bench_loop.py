"""The trainer against a plain hand-written torch loop on the same network, and each of its options one by one.

::

    OMP_NUM_THREADS=1 python benchmarks/training/bench_loop.py [--steps 60] [--rounds 3]

All ways take turns, round by round, and each is timed by the processor time of its process, so that a busy machine
blurs less; a figure is the median of its rounds. The network is the shipped image model's transformer and a small
U-Net; the batch comes from memory-mapped latents, or is decoded from PNG for every step, which is what the cache is
measured against.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from perrin.nn import DiffusionTransformer, UNet
from perrin.training.loop import run_stage
from perrin.training.objective import Objective
from perrin.training.recipe import Stage

BATCH, WARM = 32, 5
OBJECTIVE = Objective(times={"kind": "logit_normal"})


class Bench:
    """A task: latents with a context, or pixels without."""

    def __init__(self, kind: str, source: str = "cache") -> None:
        torch.manual_seed(0)
        self.kind, self.source = kind, source
        rng = np.random.default_rng(0)
        if kind == "transformer":
            self.network: nn.Module = DiffusionTransformer(16, 240, 6, 6, 416, 1, context=384)
            self.data = rng.standard_normal((512, 16, 8, 8)).astype(np.float16)
        else:
            self.network = UNet(3, (48, 96), 1, (1,))
            self.data = rng.integers(0, 255, (512, 32, 32, 3), np.uint8)
            self.files = [self._png(picture) for picture in self.data[:64]]
        self.loss_of = OBJECTIVE.loss()
        self.asked: list[float] = []
        """Processor time at each batch."""

    @staticmethod
    def _png(picture: Any) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG")
        return stream.getvalue()

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """A batch from the cache, or decoded."""
        self.asked.append(time.process_time())
        chosen = generator.integers(0, len(self.data), size)
        if self.kind == "transformer":
            return torch.from_numpy(self.data[chosen]).float()
        if self.source == "png":
            pixels = np.stack([np.asarray(Image.open(io.BytesIO(self.files[i % 64]))) for i in chosen])
        else:
            pixels = self.data[chosen]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's."""
        condition = {"context": torch.zeros(len(batch), 16, 384)} if self.kind == "transformer" else {}
        return self.loss_of(network, batch, condition, generator)

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """Nothing: not what is measured."""
        return {}

    def prepare(self, progress: Any) -> None:
        """Nothing to do."""

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Nothing to write."""
        return {}


def plain(task: Bench, steps: int, precision: str) -> None:
    """What a person writes: no accelerate, no checkpoint, no averages, no log."""
    network = task.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = task.batch(BATCH, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            noise = torch.randn(batch.shape, generator=generator)
            t = torch.sigmoid(torch.randn(len(batch), generator=generator))
            level = t.view(-1, 1, 1, 1)
            condition = {"context": torch.zeros(len(batch), 16, 384)} if task.kind == "transformer" else {}
            out = task.network((1 - level) * batch + level * noise, t, **condition)
            loss = (out.float() - (noise - batch)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def ours(task: Bench, steps: int, **options: Any) -> None:
    """The trainer."""
    values: dict[str, Any] = {"name": "bench", "task": "x:y", "steps": steps, "batch": BATCH, "save_seconds": 1e6}
    stage = Stage.model_validate(values | {"evaluate_every": 10**6} | options)
    with tempfile.TemporaryDirectory() as out:
        run_stage(stage, task, Path(out), 0, lambda *a: None)


def timed(way: Callable[[Bench, int], None], task: Bench, steps: int) -> float:
    """Items per second of processor time from one batch to another, the first `WARM` left out."""
    way(task, WARM + steps + 1)
    return BATCH * steps / (task.asked[-1] - task.asked[WARM])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=["transformer", "unet"], help="this one alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[tuple[str, str], tuple[Callable[[Bench, int], None], str]] = {}

    def trainer(**changes: Any) -> Callable[[Bench, int], None]:
        return lambda task, steps: ours(task, steps, **changes)

    for kind in (options.network,) if options.network else ("transformer", "unet"):
        for precision in ("bf16", "no"):
            ways[kind, f"plain loop, {precision}"] = (lambda task, n, p=precision: plain(task, n, p), "cache")
            ways[kind, f"trainer, {precision}"] = (trainer(precision=precision), "cache")
        ways[kind, "trainer, bf16, snapshots"] = (trainer(ema_snapshots=True), "cache")
        ways[kind, "trainer, bf16, compiled"] = (trainer(compile=True), "cache")
        ways[kind, "trainer, bf16, recompute"] = (trainer(recompute=True), "cache")
    if options.network != "transformer":
        ways["unet", "trainer, bf16, channels last"] = (trainer(channels_last=True), "cache")
        ways["unet", "trainer, bf16, decoding PNG"] = (trainer(), "png")
    found: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for name, (way, source) in track(ways.items(), "ways", transient=True):
            try:
                found[name].append(timed(way, Bench(name[0], source), options.steps))
            except Exception as error:  # a compiler's, above all
                Console(stderr=True).print(f"{', '.join(name)}: {type(error).__name__}", highlight=False)
    table = Table("network", "way", "items/s", "of the plain loop in the same precision")
    for (kind, label), rates in found.items():
        if not rates:
            table.add_row(kind, label, "failed", "")
            continue
        peer = found[kind, f"plain loop, {'no' if label.endswith(', no') else 'bf16'}"]
        ratio = statistics.median(a / b for a, b in zip(rates, peer, strict=False))
        table.add_row(kind, label, f"{statistics.median(rates):.0f}", f"{ratio:.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
