"""A checkpoint of SDXL's shape in bfloat16 under 6 GiB: 2 steps at 256x256, weights streamed from their files.

python benchmarks/checkpoints/bench_budget.py FOLDER        # FOLDER keeps the 6.9 GB checkpoint
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path

import torch

BUDGET = 6 << 30


def memory() -> dict[str, int]:
    text = Path("/proc/self/status").read_text()
    return {
        name: int(re.search(rf"{name}:\s+(\d+)", text)[1]) << 10 for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM")
    }


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ |= {"PERRIN_HOME": str(folder / "home"), "PERRIN_MEMORY_MB": str(BUDGET >> 20)}
    sys.path.insert(0, str(Path(__file__).parent))
    from shapes import write

    import perrin
    from perrin.models import models, weight_bytes
    from perrin.models.checkpoints import add_checkpoint

    if "sdxl" not in models():
        add_checkpoint(write(folder / "sdxl", "sdxl", torch.bfloat16))
        os.execv(sys.executable, [sys.executable, *sys.argv])  # a process whose peak is of sampling alone
    card = models()["sdxl"]
    print(f"weights: {weight_bytes(card) / 2**30:.2f} GiB; budget: {BUDGET / 2**30:.0f} GiB")
    peak = {"RssAnon": 0, "VmRSS": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            now = memory()
            for name in peak:
                peak[name] = max(peak[name], now[name])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.monotonic()
    made = perrin.load("image", model="sdxl", device="cpu")("a red apple", size=256, steps=2, seed=1)
    took = time.monotonic() - began
    over.set()
    print(f"2 steps at 256x256: {took:.0f} s, a picture of {made[0].value.shape}")
    print(f"peak: {peak['VmRSS'] / 2**30:.2f} GiB resident, {peak['RssAnon'] / 2**30:.2f} GiB of them not of files")
    assert peak["VmRSS"] < BUDGET


if __name__ == "__main__":
    main()
