"""Memory of training a transformer of 100 million parameters: what recomputing and a shared optimizer save.

::

    OMP_NUM_THREADS=1 python benchmarks/training/bench_memory.py

Each way is two steps of the trainer in processes of their own; a figure is the greatest resident memory of one
process beyond what it held before the network was made (on a GPU: the greatest that torch allocated). bf16, batch 8
of 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from perrin.nn import DiffusionTransformer
from perrin.training.loop import leave, run_stage
from perrin.training.objective import Objective
from perrin.training.recipe import Stage

BATCH, STEPS = 8, 2


class Bench:
    """A task of latents, (B, 16, 16, 16)."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = DiffusionTransformer(16, 768, 13, 12, 2176, 1, context=0)
        self.loss_of = Objective().loss()

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Noise."""
        return torch.from_numpy(generator.standard_normal((size, 16, 16, 16))).float()

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's."""
        return self.loss_of(network, batch, {}, generator)

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """Nothing."""
        return {}

    def prepare(self, progress: Any) -> None:
        """Nothing to do."""

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Nothing to write."""
        return {}


def held() -> float:
    """MiB: the most that this process has had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(changes: dict[str, Any]) -> None:
    """Train, and print parameters and memory."""
    import accelerate  # noqa: F401 - part of what was held before

    before = held()
    task = Bench()
    values: dict[str, Any] = {"name": "bench", "task": "x:y", "steps": STEPS, "batch": BATCH, "save_seconds": 1e6}
    with tempfile.TemporaryDirectory() as out:
        run_stage(
            Stage.model_validate(values | {"evaluate_every": 10**6} | changes), task, Path(out), 0, lambda *a: None
        )
        most = held() - before
    leave()
    print(json.dumps([sum(p.numel() for p in task.network.parameters()), most]))


def way(processes: int, changes: dict[str, Any]) -> tuple[int, list[float]]:
    """Parameters, and the memory of every process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank in range(processes):
        env = dict(os.environ)
        if processes > 1:
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, __file__, "--one", json.dumps(changes)]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    said = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return said[0][0], [most for _, most in said]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(json.loads(options.one))
        return
    ways: list[tuple[str, int, dict[str, Any]]] = [
        ("one process", 1, {}),
        ("one process, recompute", 1, {"recompute": True}),
        ("one process, recompute, accumulate 4", 1, {"recompute": True, "accumulate": 4}),
        ("two processes", 2, {}),
        ("two processes, shard", 2, {"shard": True}),
        ("two processes, shard, recompute", 2, {"shard": True, "recompute": True}),
    ]
    table = Table("way", "MiB of each process", "of the first line")
    first = 0.0
    for label, processes, changes in ways:
        parameters, most = way(processes, changes)
        first = first or most[0]
        table.add_row(label, ", ".join(f"{value:,.0f}" for value in most), f"{max(most) / first:.2f}")
        table.title = f"{parameters / 1e6:.0f} million parameters, batch {BATCH}, {STEPS} steps"
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
