"""The kernels of attention against each other, and `auto` against the best of them.

::

    OMP_NUM_THREADS=1 python benchmarks/nn/bench_attention.py [--rounds 9]

Self-attention of N tokens, 6 heads of 40 channels (the shipped image model's), forward alone and with the gradient, in
float32 and bf16. The kernels take turns, each timed by processor time on the CPU; a figure is the median of its rounds
over that of torch's fused kernel in the same rounds, so above 1 is slower. ``auto`` is what Perrin does unasked.
A second table has the patterns over a grid of 64 x 64 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from perrin.nn.attention import Backend, attend, attend_on

HEADS, HEAD = 6, 40
CUDA = torch.cuda.is_available()
SIZES = {16: 32, 64: 32, 256: 8, 1024: 2, 4096: 1}
"""Tokens, and the batch that they come in."""


def clock() -> float:
    """Seconds: of the processor, or of a wall once an accelerator has done its work."""
    if CUDA:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(work: Callable[[], Tensor], gradient: bool) -> float:
    """Seconds of one call, of enough calls to take a while."""
    count, spent = 0, 0.0
    began = clock()
    while spent < 0.05:
        out = work()
        if gradient:
            out.sum().backward()
        count += 1
        spent = clock() - began
    return spent / count


def inputs(batch: int, tokens: int, dtype: torch.dtype, gradient: bool) -> list[Tensor]:
    """q, k, v."""
    device = "cuda" if CUDA else "cpu"
    return [
        torch.randn(batch, HEADS, tokens, HEAD, device=device, dtype=dtype, requires_grad=gradient) for _ in range(3)
    ]


def compared(ways: dict[str, Callable[[], Tensor]], gradient: bool, rounds: int) -> dict[str, float]:
    """The median seconds of each way, turn by turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            spent = timed(way, gradient)
            if number:  # the first round warms up
                found[name].append(spent)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    names: list[Backend] = ["plain", "fused", *(["xformers"] if CUDA and find_spec("xformers") else []), "auto"]  # type: ignore[list-item]
    table = Table(
        "tokens", "what", "fused, ms", *[f"{name} / fused" for name in names if name != "fused"], "auto / best"
    )
    cases = [
        (tokens, dtype, gradient)
        for tokens in SIZES
        for dtype in (torch.float32, torch.bfloat16)
        for gradient in (False, True)
    ]
    for tokens, dtype, gradient in track(cases, "kernels", transient=True):
        q, k, v = inputs(SIZES[tokens], tokens, dtype, gradient)
        ways = {name: lambda name=name, q=q, k=k, v=v: attend(q, k, v, backend=name) for name in names}
        found = compared(ways, gradient, rounds)
        best = min(value for name, value in found.items() if name != "auto")
        what = f"{str(dtype).removeprefix('torch.')}, {'forward and gradient' if gradient else 'forward'}"
        ratios = [f"{found[name] / found['fused']:.2f}" for name in names if name != "fused"]
        table.add_row(str(tokens), what, f"{found['fused'] * 1e3:.2f}", *ratios, f"{found['auto'] / best:.2f}")
    q, k, v = inputs(1, 64 * 64, torch.bfloat16, False)
    patterns = {
        name: lambda name=name: attend_on(q, k, v, (64, 64), name, 0, 8, "auto") for name in ("full", "window", "axial")
    }
    found = compared(patterns, False, rounds)
    shapes = Table("pattern over 64 x 64 tokens, bfloat16", "ms", "of full")
    for name, value in found.items():
        shapes.add_row(name, f"{value * 1e3:.1f}", f"{value / found['full']:.3f}")
    console = Console(width=120)
    console.print(table)
    console.print(shapes)


if __name__ == "__main__":
    main()
