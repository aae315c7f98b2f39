"""What sampling costs beside the network: Perrin's loop and diffusers' over the same number of bare network calls.

    pip install diffusers && python benchmarks/core/bench_overhead.py

A U-Net of about 1M parameters at 32x32 on one CPU thread. All contenders take turns in one run, and ratios to the bare
network around each are printed, so that a machine whose speed drifts does not matter.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from perrin import diffusion as d

STEPS, ROUNDS, BATCH = 20, 15, 1


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
    denoiser = d.Denoiser(lambda x, t: unet(x, t).sample, process, "epsilon")
    grid = d.grid.trailing(process, STEPS)
    x = torch.randn(BATCH, 3, 32, 32)

    @torch.inference_mode()
    def bare() -> None:
        for t in grid.times:
            unet(x, torch.full((BATCH,), float(t)))

    def ours(plan: d.plan.Plan) -> Callable[[], None]:
        return lambda: d.sample(denoiser, plan, shape=(3, 32, 32), seeds=range(BATCH))

    @torch.inference_mode()
    def theirs(scheduler: DDIMScheduler | DPMSolverMultistepScheduler) -> None:
        scheduler.set_timesteps(STEPS)
        sample = x
        for t in scheduler.timesteps:
            sample = scheduler.step(unet(scheduler.scale_model_input(sample, t), t).sample, t, sample).prev_sample

    contenders: dict[str, Callable[[], None]] = {
        "perrin ddim": ours(d.solvers.ddim(grid)),
        "diffusers DDIM": lambda: theirs(DDIMScheduler(beta_schedule="linear")),
        "perrin dpmpp_2m": ours(d.solvers.dpmpp_2m(grid)),
        "diffusers DPMSolverMultistep": lambda: theirs(DPMSolverMultistepScheduler(beta_schedule="linear")),
        "perrin ddpm (stochastic)": ours(d.solvers.ddpm(grid)),
    }
    for run in (bare, *contenders.values()):
        run()
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            before = _time(bare)
            ratios[name].append(_time(run) / ((before + _time(bare)) / 2))
    for name, values in ratios.items():
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:32} {statistics.median(values):.3f} of the bare network  ({spread})")


def _time(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
