"""What sampling costs beside the network: Perrin's loop and diffusers', over the same network calls.

    pip install diffusers && python benchmarks/core/bench_overhead.py

A U-Net of about 1M parameters at 32x32 on one CPU thread. All contenders take turns in one run and are given their
starting noise. Two figures each: the time of a whole run over the time spent inside its network calls (the clock is
read around each call, so a machine whose speed drifts does not matter), and over bare network calls made just before
and after (which also sees what a loop does to the caches, and the drift).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from perrin import diffusion as d

STEPS, ROUNDS, BATCH = 20, 25, 1


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=8,
    ).eval()  # fmt: skip
    print(f"U-Net of {sum(p.numel() for p in unet.parameters()) / 1e6:.2f}M parameters, {STEPS} steps, batch {BATCH}")
    process = d.process.linear()
    inside = [0.0]

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        out: torch.Tensor = unet(x, t).sample
        inside[0] += time.perf_counter() - began
        return out

    denoiser = d.Denoiser(network, process, "epsilon")
    grid = d.grid.trailing(process, STEPS)
    x = torch.randn(BATCH, 3, 32, 32)

    @torch.inference_mode()
    def bare() -> None:
        for t in grid.times:
            network(x, torch.full((BATCH,), float(t)))

    def ours(plan: d.plan.Plan) -> Callable[[], None]:
        return lambda: d.sample(denoiser, plan, shape=(3, 32, 32), seeds=range(BATCH), noise=x)

    @torch.inference_mode()
    def theirs(scheduler: Any) -> None:
        scheduler.set_timesteps(STEPS)
        sample = x
        for t in scheduler.timesteps:
            sample = scheduler.step(network(scheduler.scale_model_input(sample, t), t), t, sample).prev_sample

    contenders: dict[str, Callable[[], None]] = {
        "perrin ddim": ours(d.solvers.ddim(grid)),
        "diffusers DDIM": lambda: theirs(DDIMScheduler(beta_schedule="linear")),
        "perrin dpmpp_2m": ours(d.solvers.dpmpp_2m(grid)),
        "diffusers DPMSolverMultistep": lambda: theirs(DPMSolverMultistepScheduler(beta_schedule="linear")),
        "perrin ddpm, stochastic": ours(d.solvers.ddpm(grid)),
        "diffusers DDPM, stochastic": lambda: theirs(DDPMScheduler(beta_schedule="linear")),
    }
    for run in (bare, *contenders.values()):
        run()
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            before = _time(bare)
            inside[0] = 0.0
            whole, within = _time(run), inside[0]
            ratios[name].append((whole / within, whole / ((before + _time(bare)) / 2)))
    print(f"{'':32} over its own calls   over bare calls")
    for name, values in ratios.items():
        own, outer = (statistics.median(v) for v in zip(*values, strict=True))
        spread = f"({min(v for _, v in values):.3f} to {max(v for _, v in values):.3f})"
        print(f"{name:32} {own:18.4f} {outer:17.3f}  {spread}")


def _time(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
