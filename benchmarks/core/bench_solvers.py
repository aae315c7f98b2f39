"""The error of every deterministic solver, and of the same solver in diffusers and k-diffusion, in one run.

    pip install diffusers scipy && pip install --no-deps k-diffusion && python benchmarks/core/bench_solvers.py

Writes docs/solvers.md and docs/pictures/solvers.svg. The exact denoiser of a one-dimensional Gaussian mixture takes 64
starts from sigma 80 to 0.002 in N steps, on levels even in sigma^(1/7) (Karras et al., rho = 7); the error is the root
mean square distance from the end that DOP853 finds. All have the same levels and float64 inputs, and evaluations of the
network are counted as they happen. The step to the clean end, which would come after, is not taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import time
import types
import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import solve_ivp  # type: ignore[import-untyped]
from solvers_page import COUNTS, Result, write
from torch import Tensor

from perrin import diffusion as d

Array = npt.NDArray[np.float64]
End = Callable[[Array], Tensor]
"""From noise levels to the states at the last of them."""

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
SPREADS = torch.tensor([0.25, 0.1, 0.5], dtype=torch.float64)
STARTS = torch.tensor([[NormalDist().inv_cdf((i + 0.5) / 64) for i in range(64)]], dtype=torch.float64)
TOP, BOTTOM = 80.0, 0.002

INTERVALS = {"dpm_solver_2s": 2, "dpmpp_2s": 2, "res_2s": 2, "dpm_solver_3s": 3, "dpmpp_3s": 3, "res_3s": 3}
"""Grid intervals in a step, where it spends grid points as its nodes."""


class Mixture:
    """The clean estimate of the mixture, which counts its evaluations."""

    evaluations = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.evaluations += 1
        noise = (sigma * sigma).reshape(-1, 1, 1)
        variance = SPREADS**2 + noise
        x = x[..., None].double()
        logits = WEIGHTS.log() - variance.log() / 2 - (x - MEANS) ** 2 / (2 * variance)
        clean: Tensor = (torch.softmax(logits, -1) * (x * SPREADS**2 + MEANS * noise) / variance).sum(-1)
        return clean


NETWORK = Mixture()


def levels(intervals: int) -> Array:
    """One noise level more than intervals."""
    even: Array = np.linspace(TOP ** (1 / 7), BOTTOM ** (1 / 7), intervals + 1) ** 7
    return np.clip(even, BOTTOM, TOP)


@cache
def reference() -> Tensor:
    """The ends of the exact flow dx / dlambda = D - x, lambda = -log sigma."""

    def slope(lam: float, x: Array) -> Array:
        clean = NETWORK(torch.from_numpy(x)[None], torch.tensor([math.exp(-lam)], dtype=torch.float64))
        return np.asarray(clean[0].numpy() - x)

    span = (-math.log(TOP), -math.log(BOTTOM))
    found = solve_ivp(slope, span, TOP * STARTS[0].numpy(), method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(found.y[:, -1])[None]


def perrin(name: str, sigmas: Array) -> Tensor:
    process = d.process.edm(BOTTOM, TOP)
    plan = d.solvers.solver(name)(d.grid.explicit(process, sigmas))
    denoiser = d.Denoiser(NETWORK, process, "x0")
    run = d.start(denoiser, plan, shape=(64,), seeds=[0], noise=STARTS, dtype=torch.float64)
    while run.row < len(plan) - 1:
        run.step()
    state: Tensor = run.state
    return state


def scheduled(kind: str, settings: dict[str, Any], sigmas: Array) -> Tensor:
    """A scheduler of diffusers that goes by noise levels: it is given ours, rounds them, and computes in float64."""
    scheduler = getattr(diffusers, kind)(use_karras_sigmas=True, **settings)
    scheduler._convert_to_karras = lambda **_: sigmas
    scheduler.set_timesteps(len(sigmas))
    scheduler.set_begin_index(0)
    asked = scheduler.sigmas = scheduler.sigmas.double()
    if hasattr(scheduler, "sigmas_interpol"):
        middles = scheduler.sigmas_interpol = scheduler.sigmas_interpol.double()
        asked = torch.where(torch.arange(len(middles)) % 2 == 1, middles, asked)
    # Those that start from more than unit variance hold x / alpha, the others x.
    return driven(scheduler, asked, ratio=scheduler.init_noise_sigma != 1)


def tabled(kind: str, settings: dict[str, Any], sigmas: Array) -> Tensor:
    """A scheduler of diffusers that goes by training steps: every other one is a level of ours, between them means."""
    table = np.repeat(sigmas[::-1], 2)
    table[1:-1:2] = (table[:-2:2] + table[2::2]) / 2
    scheduler = getattr(diffusers, kind)(num_train_timesteps=len(table), **settings)
    scheduler.alphas_cumprod = torch.from_numpy(1 / (1 + table**2))
    scheduler.set_timesteps(len(sigmas))
    return driven(scheduler, torch.from_numpy(table)[scheduler.timesteps])


def ipndm(sigmas: Array) -> Tensor:
    """diffusers' IPNDM has a schedule of its own and takes v."""
    kind: Any = diffusers.IPNDMScheduler
    scheduler = kind()
    scheduler.set_timesteps(len(sigmas))
    alphas = 1 / np.sqrt(1 + sigmas**2)
    scheduler.alphas, scheduler.betas = torch.from_numpy(alphas), torch.from_numpy(sigmas * alphas)
    return driven(scheduler, torch.from_numpy(sigmas), velocity=True)


def driven(scheduler: Any, asked: Tensor, ratio: bool = False, velocity: bool = False) -> Tensor:
    """x / alpha after every call of ``scheduler.step`` but the last, the i-th of which is asked about level i."""
    x = TOP * STARTS * (1 if ratio else (1 + TOP**2) ** -0.5)
    for t, sigma in zip(scheduler.timesteps[:-1], asked, strict=False):
        alpha = (1 + sigma**2) ** -0.5
        scheduler.scale_model_input(x, t)
        held = x if ratio else x / alpha
        epsilon = (held - NETWORK(held, sigma)) / sigma
        output = alpha * epsilon - alpha * sigma * (held - sigma * epsilon) if velocity else epsilon
        x = scheduler.step(output, t, x, return_dict=False)[0]
    return x if ratio else x * (1 + BOTTOM**2) ** 0.5


@cache
def k_sampling() -> Any:
    """``k_diffusion.sampling`` without the package around it, which imports training tools."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations or ())
    package.utils = utils  # type: ignore[attr-defined]
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # type: ignore[attr-defined]
    # What only its likelihoods and stochastic samplers use.
    likelihood, paths = types.ModuleType("torchdiffeq"), types.ModuleType("torchsde")
    likelihood.odeint = None  # type: ignore[attr-defined]
    sys.modules |= {made.__name__: made for made in (package, utils, likelihood, paths)}
    return importlib.import_module("k_diffusion.sampling")


def k_sampled(name: str, options: dict[str, Any], sigmas: Array) -> Tensor:
    sampler = getattr(k_sampling(), f"sample_{name}")
    end: Tensor = sampler(NETWORK, TOP * STARTS, torch.from_numpy(sigmas), disable=True, **options)
    return end


def k_middled(sigmas: Array) -> Tensor:
    """Its DPM-Solver++(2S) has a node of its own in every step: half as many intervals."""
    return k_sampled("dpmpp_2s_ancestral", {"eta": 0.0}, levels((len(sigmas) - 1) // 2))


def k_singlestep(order: int, sigmas: Array) -> Tensor:
    """DPM-Solver's steps of ``order`` evaluations, whose nodes are even in log-SNR, over as many levels each."""
    solver, x = k_sampling().DPMSolver(NETWORK), TOP * STARTS
    for t, following in pairwise(-torch.from_numpy(sigmas).log()[::order]):
        x, _ = getattr(solver, f"dpm_solver_{order}_step")(x, t, following)
    return x


def dpm_solver(order: int, algorithm: str, form: str = "midpoint", kind: str = "Multi") -> End:
    """DPM-Solver (which refuses the clean end, though it is not reached here) or DPM-Solver++ of diffusers."""
    settings = {"solver_order": order, "solver_type": form, "algorithm_type": algorithm, "lower_order_final": True}
    last = "sigma_min" if algorithm == "dpmsolver" else "zero"
    return partial(scheduled, f"DPMSolver{kind}stepScheduler", {**settings, "final_sigmas_type": last})


DIFFUSERS: dict[str, End] = {
    "ddim": partial(tabled, "DDIMScheduler", {"clip_sample": False}),
    "euler": partial(scheduled, "EulerDiscreteScheduler", {}),
    "heun": partial(scheduled, "HeunDiscreteScheduler", {}),
    "dpm2": partial(scheduled, "KDPM2DiscreteScheduler", {}),
    "lms": partial(scheduled, "LMSDiscreteScheduler", {}),
    "pndm": partial(tabled, "PNDMScheduler", {}),
    "plms": partial(tabled, "PNDMScheduler", {"skip_prk_steps": True}),
    "ipndm": ipndm,
    "deis_2": partial(scheduled, "DEISMultistepScheduler", {"solver_order": 2}),
    "deis_3": partial(scheduled, "DEISMultistepScheduler", {"solver_order": 3}),
    "dpm_solver_1": dpm_solver(1, "dpmsolver"),
    "dpm_solver_2s": dpm_solver(2, "dpmsolver", kind="Single"),
    "dpm_solver_3s": dpm_solver(3, "dpmsolver", kind="Single"),
    "dpm_solver_2m": dpm_solver(2, "dpmsolver"),
    "dpm_solver_3m": dpm_solver(3, "dpmsolver"),
    "dpmpp_2s": dpm_solver(2, "dpmsolver++", kind="Single"),
    "dpmpp_3s": dpm_solver(3, "dpmsolver++", kind="Single"),
    "dpmpp_2m": dpm_solver(2, "dpmsolver++"),
    "dpmpp_3m": dpm_solver(3, "dpmsolver++"),
    "eab2": dpm_solver(2, "dpmsolver++", "heun"),
    "res_2s": dpm_solver(2, "dpmsolver++", "heun", "Single"),
    "res_2m": dpm_solver(2, "dpmsolver++", "heun"),
    "unipc_2": partial(scheduled, "UniPCMultistepScheduler", {"solver_order": 2}),
    "unipc_3": partial(scheduled, "UniPCMultistepScheduler", {"solver_order": 3}),
}

WITHOUT_NOISE = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}

K_DIFFUSION: dict[str, End] = {
    "ddim": partial(k_sampled, "euler", {}),
    "euler": partial(k_sampled, "euler", {}),
    "heun": partial(k_sampled, "heun", {}),
    "dpm2": partial(k_sampled, "dpm_2", {}),
    "lms": partial(k_sampled, "lms", {}),
    "dpm_solver_1": partial(k_singlestep, 1),
    "dpm_solver_2s": partial(k_singlestep, 2),
    "dpm_solver_3s": partial(k_singlestep, 3),
    "dpmpp_2s": k_middled,
    "dpmpp_2m": partial(k_sampled, "dpmpp_2m", {}),
    "dpmpp_3m": partial(k_sampled, "dpmpp_3m_sde", WITHOUT_NOISE),
    "eab2": partial(k_sampled, "dpmpp_2m_sde", {**WITHOUT_NOISE, "solver_type": "heun"}),
    "res_2m": partial(k_sampled, "dpmpp_2m_sde", {**WITHOUT_NOISE, "solver_type": "heun"}),
}


def measured(end: End, intervals: int) -> Result:
    errors, evaluations = [], []
    for count in COUNTS:
        before = NETWORK.evaluations
        away = end(levels(count * intervals)) - reference()
        errors.append(float(away.square().mean().sqrt()))
        evaluations.append(NETWORK.evaluations - before)
    return Result(tuple(errors), tuple(evaluations))


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    began, results = time.perf_counter(), dict[str, dict[str, Result]]()
    reference()
    for solver in d.solvers.SOLVERS.values():
        if solver.stochastic or solver.name in ("flow_euler", "flow_heun"):
            continue
        ends: dict[str, End] = {"Perrin": partial(perrin, solver.name)}
        for library, peers in (("diffusers", DIFFUSERS), ("k-diffusion", K_DIFFUSION)):
            if solver.name in peers:
                ends[library] = peers[solver.name]
        results[solver.name] = {who: measured(end, INTERVALS.get(solver.name, 1)) for who, end in ends.items()}
        for library, result in results[solver.name].items():
            print(f"{solver.name:14} {library:12} slope {result.slope:5.2f}", *(f"{e:.2e}" for e in result.errors))
    write(results)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
