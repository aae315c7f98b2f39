"""How long a newcomer waits: the command line from a cold start, and each further picture of every kind of size.

    python benchmarks/image/bench_generate.py

Prints medians over runs, and the bars that the project holds itself to on two CPU cores. Not part of the tests.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5


def main() -> None:
    """Measure and print."""
    perrin = Path(sys.executable).with_name("perrin")
    with tempfile.TemporaryDirectory() as folder:
        cold = []
        for run in range(3):
            began = time.perf_counter()
            command = [perrin, "generate", "image", "a red apple", "--seed", "7", "--out", f"{folder}/{run}.png"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            cold.append(time.perf_counter() - began)
        helps = []
        for _ in range(RUNS):
            began = time.perf_counter()
            subprocess.run([perrin, "--help"], check=True, stdout=subprocess.DEVNULL)
            helps.append(time.perf_counter() - began)
    import perrin as sdk

    generate = sdk.load("image")
    generate("warm up", seed=1)
    generate("warm up", seed=1, size=256)
    rows = [
        ("perrin generate, cold, to the file", cold, 12.0),
        ("perrin --help", helps, 0.3),
    ]
    for size, bar in ((64, 3.0), ("96x64", 3.0), (256, 10.0), ("384x256", 10.0)):
        warm = []
        for seed in range(RUNS):
            began = time.perf_counter()
            generate("a red apple", seed=seed, size=size)
            warm.append(time.perf_counter() - began)
        rows.append((f"each further picture, size {size}", warm, bar))
    for title, times, bar in rows:
        print(f"{title:38} median {statistics.median(times):6.2f} s  (bar {bar:g} s, {len(times)} runs)")


if __name__ == "__main__":
    main()
