"""Our samplers against those of diffusers and k-diffusion: the same network, noise and levels give the same result.

To 1e-4 relative in float32 and, where theirs computes in it, 1e-8 in float64. Where theirs differs, the equation stands
beside a test in which theirs fails a law that ours keeps.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from perrin import diffusion as d

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (3, 4)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


def _needs(name: str) -> Any:
    """A library that a user may lack, and continuous integration may not."""
    if os.environ.get("CI") == "true":
        return importlib.import_module(name)
    return pytest.importorskip(name)


def _k_diffusion() -> Any:
    """``k_diffusion.sampling`` alone: the package around it imports training tools."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        return _needs("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    package.utils = types.ModuleType("k_diffusion.utils")
    package.utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    stubs = {"k_diffusion": package, "k_diffusion.utils": package.utils}
    for name, attribute in (("torchdiffeq", "odeint"), ("torchsde", "BrownianTree")):
        stubs[name] = types.ModuleType(name)
        setattr(stubs[name], attribute, None)
    path = Path(package.__path__[0]) / "sampling.py"
    made = importlib.util.spec_from_file_location("k_diffusion.sampling", path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        made.loader.exec_module(module)
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    return module


def mlp(x: Tensor, t: Tensor, outputs: int = 3) -> Tensor:
    """A fixed random network of (x, t) with bounded slope, the same in both precisions."""
    rng = np.random.default_rng(7)
    size = SHAPE[0] * SHAPE[1]
    first, last = rng.normal(size=(size + 1, 32)) / 6, rng.normal(size=(32, outputs * SHAPE[1])) / 6
    inside = torch.cat([x.flatten(1), t.reshape(-1, 1).to(x.dtype)], 1)
    hidden = torch.tanh(inside @ torch.from_numpy(first).to(x.dtype))
    return (hidden @ torch.from_numpy(last).to(x.dtype)).reshape(len(x), outputs, SHAPE[1])


def draws(index: int) -> Tensor:
    """Noise of a draw, the same in both precisions."""
    return torch.from_numpy(np.random.default_rng(100 + index).normal(size=(2, *SHAPE)))


def ours(
    name: str,
    grid: d.grid.Grid,
    denoiser: d.Denoiser,
    dtype: torch.dtype,
    options: dict[str, Any],
    rows: int | None = None,
) -> Tensor:
    """Our result, or the state after so many rows (counted from the end where negative)."""
    plan = d.solvers.solver(name)(grid, **options)
    run = d.start(denoiser, plan, shape=SHAPE, seeds=[0, 1], noise=draws, dtype=dtype)
    stop = len(plan) if rows is None else rows % len(plan)
    while run.row < stop:
        run.step()
    state: Tensor = run.state
    return state


def agree(a: Tensor, b: Tensor, dtype: torch.dtype) -> float:
    """Largest difference over largest value, which must be within the tolerance."""
    assert a.dtype == b.dtype == dtype
    away = float((a - b).abs().max() / b.abs().max())
    print(f"differs by {away:.1e}")
    assert away <= TOLERANCE[dtype]
    return away


# --- k-diffusion ------------------------------------------------------------------------------------------------------


def edm_network(x: Tensor, sigma: Tensor) -> Tensor:
    scale = (1 + sigma**2).sqrt().reshape(-1, 1, 1)
    return mlp(x / scale, sigma.log() / 4) + x / scale**2


SIGMAS = np.append(np.linspace(20 ** (1 / 7), 0.05 ** (1 / 7), 12) ** 7, 0.0)


def k_sampler(
    name: str, sigmas: np.ndarray, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Tensor:
    """Their result. Noise of the k-th step is draw k."""
    sampling = _k_diffusion()
    calls = iter(range(1, 1000))
    monkeypatch.setattr(torch, "randn_like", lambda x: draws(next(calls)).to(x.dtype))
    levels = torch.from_numpy(sigmas).to(dtype)
    x = draws(0).to(dtype) * levels[0]
    return getattr(sampling, f"sample_{name}")(edm_network, x, levels, disable=True, **options)


K_CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("euler", {}, "euler", {}),
    ("euler", {}, "ddim", {}),
    ("heun", {}, "heun", {}),
    ("heun", {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.01}, "edm_churn", {}),
    ("dpm_2", {}, "dpm2", {}),
    ("lms", {}, "lms", {}),
    ("lms", {"order": 2}, "lms", {}),
    ("dpmpp_2m", {}, "dpmpp_2m", {}),
    ("euler_ancestral", {}, "euler_ancestral", {}),
    ("euler_ancestral", {"eta": 0.6}, "euler_ancestral", {}),
    ("dpm_2_ancestral", {}, "dpm2_ancestral", {}),
    ("dpm_2_ancestral", {"eta": 0.6}, "dpm2_ancestral", {}),
    ("dpmpp_2m_sde", {}, "dpmpp_2m_sde", {"variant": "midpoint"}),
    ("dpmpp_2m_sde", {"eta": 0.4, "solver_type": "heun", "s_noise": 1.1}, "dpmpp_2m_sde", {"variant": "heun"}),
    ("dpmpp_sde", {}, "dpmpp_sde", {}),
    ("dpmpp_sde", {"eta": 0.7, "r": 0.4}, "dpmpp_sde", {}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("theirs", "given", "name", "mine"), K_CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_k_diffusion(
    theirs: str,
    given: dict[str, Any],
    name: str,
    mine: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = d.process.edm(0.05, 20.0)
    grid = d.grid.explicit(process, np.clip(SIGMAS[:-1], 0.05, 20))
    options = dict(given)
    if theirs.endswith("_sde"):
        options["noise_sampler"] = _path() if theirs == "dpmpp_sde" else _each_step()
    shared = {key: value for key, value in given.items() if key != "solver_type"}
    a = ours(name, grid, d.Denoiser(edm_network, process, "x0"), dtype, {**shared, **mine})
    agree(a, k_sampler(theirs, SIGMAS, dtype, monkeypatch, **options), dtype)


def _each_step() -> Callable[[Tensor, Tensor], Tensor]:
    calls = iter(range(1, 1000))
    return lambda sigma, following: draws(next(calls)).to(sigma.dtype)


def _path() -> Callable[[Tensor, Tensor], Tensor]:
    """Brownian increments over the root of their length, two draws a step: to the middle, and on from there."""
    middle: list[tuple[Tensor, int]] = []
    calls = iter(range(1, 1000, 2))

    def sampler(sigma: Tensor, following: Tensor) -> Tensor:
        if not middle:
            middle.append((following, next(calls)))
            return draws(middle[0][1]).to(sigma.dtype)
        between, index = middle.pop()
        early = (sigma - between).sqrt() * draws(index).to(sigma.dtype)
        late = (between - following).sqrt() * draws(index + 1).to(sigma.dtype)
        return (early + late) / (sigma - following).sqrt()

    return sampler


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_diffusion_singlestep_nodes_are_grid_points(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their 2S puts a node at the middle of each step; on a grid with those nodes as points ours is the same."""
    process = d.process.edm(0.05, 20.0)
    ends = SIGMAS[:-1]
    fine = np.sort(np.append(ends, np.sqrt(ends[1:] * ends[:-1])))[::-1]
    grid = d.grid.explicit(process, np.clip(fine, 0.05, 20))
    a = ours("dpmpp_2s", grid, d.Denoiser(edm_network, process, "x0"), dtype, {})
    agree(a, k_sampler("dpmpp_2s_ancestral", SIGMAS, dtype, monkeypatch, eta=0.0), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [7, 8])
def test_k_diffusion_dpm_fast(dtype: torch.dtype, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 3, 3 and 1 (or 2) evaluations, even in log-SNR, whose thirds and halves are our grid points."""
    sampling, process = _k_diffusion(), d.process.edm(0.05, 20.0)
    ends = np.linspace(math.log(20), math.log(0.05), 4)
    last = count - 6
    parts = [np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(ends, ends[1:], (3, 3, last), strict=False)]
    sigmas = np.exp(np.append(np.concatenate(parts), ends[-1]))
    grid = d.grid.explicit(process, np.clip(sigmas, 0.05, 20))
    a = ours("dpm_solver_3s", grid, d.Denoiser(edm_network, process, "x0"), dtype, {}, rows=-1)
    top, bottom = (torch.tensor(s, dtype=dtype) for s in (20.0, 0.05))
    # Theirs makes its times in the default type whatever x is.
    linspace = torch.linspace
    monkeypatch.setattr(torch, "linspace", lambda *args, **options: linspace(*args, **options, dtype=dtype))
    solver = sampling.DPMSolver(edm_network, {})
    b = solver.dpm_solver_fast(draws(0).to(dtype) * top, solver.t(top), solver.t(bottom), count)
    agree(a, b, dtype)


@pytest.mark.parametrize("count", [2, 12])
def test_k_diffusion_3m_sde_halves_a_derivative(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""The exemption: with two estimates theirs and ours are one, with three they are not.

    The parabola through three estimates has second derivative :math:`D'' = 2 (D_{1,0} - D_{1,1}) / ((r_0 + r_1) h^2)`
    with their difference quotients D_{1,0}, D_{1,1}; its weight is :math:`\alpha_b h^3 \varphi_3`, and their ``phi_3``
    is that phi. But their ``d2`` lacks the 2. The next test shows what that costs.
    """
    process = d.process.edm(0.05, 20.0)
    sigmas = np.append(SIGMAS[:count], 0.0)
    grid = d.grid.explicit(process, np.clip(sigmas[:-1], 0.05, 20))
    a = ours("dpmpp_3m_sde", grid, d.Denoiser(edm_network, process, "x0"), torch.float64, {})
    b = k_sampler("dpmpp_3m_sde", sigmas, torch.float64, monkeypatch, noise_sampler=_each_step())
    away = float((a - b).abs().max() / b.abs().max())
    assert (away < 1e-8) == (count == 2)


def _slope(end: Callable[[int], float], exact: float, counts: tuple[int, int]) -> float:
    first, second = (abs(end(n) - exact) for n in counts)
    return math.log(first / second) / math.log(counts[1] / counts[0])


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The clean estimate of data N(0.5, 0.6^2)."""
    return 0.5 + (x - 0.5) * 0.36 / (0.36 + sigma.reshape(-1, 1, 1) ** 2)


def test_whole_second_derivative_gives_the_third_order() -> None:
    """The law: three estimates make the order 3. Theirs, without noise, reaches 2."""
    sampling, process = _k_diffusion(), d.process.edm(0.05, 80.0)
    x = torch.full((1, *SHAPE), 70.0, dtype=torch.float64)
    exact = 0.5 + 69.5 * math.sqrt((0.36 + 0.05**2) / (0.36 + 80**2))

    def levels(steps: int) -> np.ndarray:
        return np.clip(np.linspace(80 ** (1 / 7), 0.05 ** (1 / 7), steps + 1) ** 7, 0.05, 80)

    def theirs(steps: int) -> float:
        sigmas = torch.from_numpy(levels(steps))
        sampler = sampling.sample_dpmpp_3m_sde
        return float(sampler(gaussian, x, sigmas, eta=0.0, noise_sampler=_each_step(), disable=True)[0, 0, 0])

    def mine(steps: int) -> float:
        plan = d.solvers.dpmpp_3m_sde(d.grid.explicit(process, levels(steps)), eta=0.0)
        options = {"shape": SHAPE, "seeds": [0], "noise": x / 80, "dtype": torch.float64}
        run = d.start(d.Denoiser(gaussian, process, "x0"), plan, **options)
        while run.row < steps:
            run.step()
        return float(run.state[0, 0, 0])

    slopes = [_slope(end, exact, (128, 256)) for end in (theirs, mine)]
    print(slopes)
    assert slopes[0] < 2.3
    assert slopes[1] > 2.9


# --- diffusers --------------------------------------------------------------------------------------------------------

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PROCESS = d.process.linear()


def epsilon(x: Tensor, t: Tensor) -> Tensor:
    return 0.8 * x + 0.3 * mlp(x, t / 1000)


class Peer:
    """One of their schedulers on our levels, with our draws in place of its own."""

    def __init__(
        self,
        name: str,
        grid: d.grid.Grid,
        dtype: torch.dtype,
        monkeypatch: pytest.MonkeyPatch,
        settings: dict[str, Any],
        fix_times: bool = True,
        last: float = 0.0,
    ) -> None:
        diffusers = _needs("diffusers")
        kind = getattr(diffusers, name)
        self.scheduler = kind(**{**BETAS, **settings})
        self.dtype, self.calls, self.states = dtype, 0, list[Tensor]()
        if hasattr(module := sys.modules[kind.__module__], "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", self.draw)
        self.scheduler.set_timesteps(len(grid))
        if fix_times:
            self.scheduler.timesteps = torch.from_numpy(grid.times.copy()).long()
        exact = torch.from_numpy(PROCESS.alpha(np.arange(1000)) ** 2).to(dtype)
        self.scheduler.alphas_cumprod = exact
        if hasattr(self.scheduler, "sigmas"):
            ratios = torch.from_numpy(np.append(grid.sigma[:-1] / grid.alpha[:-1], last))
            if len(self.scheduler.sigmas) == len(ratios):
                self.scheduler.sigmas = ratios.to(dtype)

    def draw(self, shape: Any, **_: Any) -> Tensor:
        self.calls += 1
        return draws(self.calls).to(self.dtype)

    def run(self, network: Callable[[Tensor, Tensor], Tensor], start: float, scaled: bool = False) -> Tensor:
        """Sample; where ``scaled``, their state is x / alpha and the network is asked through scale_model_input."""
        x = draws(0).to(self.dtype) * start
        for t in self.scheduler.timesteps:
            asked = self.scheduler.scale_model_input(x, t) if scaled else x
            x = self.scheduler.step(network(asked, t.to(self.dtype).expand(len(x))), t, x, return_dict=False)[0]
            self.states.append(x)
        return x


Case = tuple[str, str, dict[str, Any], dict[str, Any], bool]

# ours, theirs, their settings, our options, whether theirs computes in float64
CASES: list[Case] = [
    ("ddim", "DDIMScheduler", {"clip_sample": False}, {}, True),
    ("dpm_solver_1", "DPMSolverMultistepScheduler", {"solver_order": 1}, {}, False),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"solver_order": 2}, {}, False),
    ("eab2", "DPMSolverMultistepScheduler", {"solver_order": 2, "solver_type": "heun"}, {}, False),
    ("res_2m", "DPMSolverMultistepScheduler", {"solver_order": 2, "solver_type": "heun"}, {}, False),
    ("dpmpp_2m_sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}, False),
    ("dpmpp_2s", "DPMSolverSinglestepScheduler", {}, {}, True),
    ("dpmpp_3s", "DPMSolverSinglestepScheduler", {"solver_order": 3}, {"variant": "midpoint"}, True),
    ("dpmpp_3s", "DPMSolverSinglestepScheduler", {"solver_order": 3, "solver_type": "heun"}, {"variant": "heun"}, True),
    ("res_2s", "DPMSolverSinglestepScheduler", {"solver_type": "heun"}, {}, True),
    ("unipc_2", "UniPCMultistepScheduler", {"solver_order": 2}, {}, True),
    ("unipc_3", "UniPCMultistepScheduler", {"solver_order": 3}, {}, True),
]


def _cases() -> list[Any]:
    both = [(case, torch.float32) for case in CASES] + [(case, torch.float64) for case in CASES if case[4]]
    return [pytest.param(*case, dtype, id=f"{case[0]}-{dtype}"[:-2]) for case, dtype in both]


@pytest.mark.parametrize("steps", [10, 18])
@pytest.mark.parametrize(("name", "theirs", "settings", "options", "double", "dtype"), _cases())
def test_diffusers(
    name: str,
    theirs: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    double: bool,
    dtype: torch.dtype,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = d.grid.leading(PROCESS, 10) if name == "ddim" else d.grid.trailing(PROCESS, steps)
    zero = {} if name == "ddim" else {"final_sigmas_type": "zero"}
    peer = Peer(theirs, grid, dtype, monkeypatch, {**zero, **settings})
    a = ours(name, grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, options)
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [2, 3])
def test_diffusers_unipc_bh1(order: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal but for the last row, where theirs multiplies B = h, infinite, by a correction that is 0."""
    grid = d.grid.trailing(PROCESS, 10)
    settings = {"solver_order": order, "solver_type": "bh1", "final_sigmas_type": "zero"}
    peer = Peer("UniPCMultistepScheduler", grid, dtype, monkeypatch, settings)
    assert not peer.run(epsilon, float(grid.sigma[0])).isfinite().any()
    denoiser = d.Denoiser(epsilon, PROCESS, "epsilon")
    a = ours(f"unipc_{order}", grid, denoiser, dtype, {"variant": "bh1"}, rows=-1)
    agree(a, peer.states[-2], dtype)
    assert ours(f"unipc_{order}", grid, denoiser, dtype, {"variant": "bh1"}).isfinite().all()


NOISE = [
    ("dpm_solver_1", "Multi", 1, "midpoint", {}, False),
    ("dpm_solver_2m", "Multi", 2, "midpoint", {}, False),
    ("deis_2", "Multi", 2, "heun", {}, False),
    ("dpm_solver_2s", "Single", 2, "midpoint", {}, True),
    ("dpm_solver_2s", "Single", 2, "heun", {"variant": "heun"}, True),
    ("dpm_solver_3s", "Single", 3, "midpoint", {"variant": "midpoint"}, True),
    ("dpm_solver_3s", "Single", 3, "heun", {"variant": "heun"}, True),
]


@pytest.mark.parametrize(
    ("name", "kind", "order", "form", "options", "dtype"),
    [(*case[:5], dtype) for case in NOISE for dtype in TOLERANCE if case[5] or dtype == torch.float32],
    ids=lambda v: str(v),
)
def test_diffusers_in_noise_space(
    name: str,
    kind: str,
    order: int,
    form: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Theirs refuses the clean end here, so both end at training step 0. 19 steps are blocks of 2 or 3, and one."""
    times = np.append(np.arange(999, 0, -54), 0)
    grid, inner = d.grid.explicit(PROCESS, times), d.grid.explicit(PROCESS, times[:-1])
    assert len(inner) == 19
    settings = {"algorithm_type": "dpmsolver", "solver_order": order, "solver_type": form}
    settings["final_sigmas_type"] = "sigma_min"
    last = float(grid.sigma[-2] / grid.alpha[-2])
    peer = Peer(f"DPMSolver{kind}stepScheduler", inner, dtype, monkeypatch, settings, last=last)
    a = ours(name, grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, options, rows=-1)
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_diffusers_ddpm(variance: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = d.grid.leading(PROCESS, 10)
    kind = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    settings = {"clip_sample": False, "variance_type": kind, "timestep_spacing": "leading"}
    peer = Peer("DDPMScheduler", grid, dtype, monkeypatch, settings)

    def network(x: Tensor, t: Tensor) -> Tensor:
        made = epsilon(x, t)
        return torch.cat([made, torch.tanh(mlp(x, t / 500))], 1) if variance == "learned" else made

    denoiser = d.Denoiser(network, PROCESS, "epsilon", variance=variance == "learned")
    a = ours("ddpm", grid, denoiser, dtype, {"variance": variance})
    agree(a, peer.run(network, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_diffusers_ddim_with_noise(eta: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = d.grid.leading(PROCESS, 10)
    peer = Peer("DDIMScheduler", grid, dtype, monkeypatch, {"clip_sample": False})
    step = peer.scheduler.step
    peer.scheduler.step = lambda *args, **options: step(*args, eta=eta, **options)
    a = ours("ddim", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {"eta": eta})
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_diffusers_pndm(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = d.grid.leading(PROCESS, 10)
    settings = {"skip_prk_steps": name == "plms", "set_alpha_to_one": True}
    peer = Peer("PNDMScheduler", grid, dtype, monkeypatch, settings, fix_times=False)
    a = ours(name, grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {})
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diffusers_ipndm(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs takes v and has a schedule of its own; it is handed ours."""
    diffusers = _needs("diffusers")
    grid = d.grid.trailing(PROCESS, 10)
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(10)
    scheduler.alphas, scheduler.betas = (torch.from_numpy(v.copy()).to(dtype) for v in (grid.alpha, grid.sigma))
    scheduler.timesteps = torch.from_numpy(grid.times.copy())
    x = draws(0).to(dtype) * float(grid.sigma[0])
    for i, t in enumerate(scheduler.timesteps):
        eps = epsilon(x, t.to(dtype).expand(2))
        v = (eps - scheduler.betas[i] * x) / scheduler.alphas[i]
        x = scheduler.step(v, t, x, return_dict=False)[0]
    a = ours("ipndm", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {})
    agree(a, x, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [2, 3])
def test_diffusers_deis(order: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs ends at training step 0, which here is our last point but the clean one."""
    times = np.append(np.arange(999, 0, -55), 0)
    grid, inner = d.grid.explicit(PROCESS, times), d.grid.explicit(PROCESS, times[:-1])
    last = float(grid.sigma[-2] / grid.alpha[-2])
    peer = Peer("DEISMultistepScheduler", inner, dtype, monkeypatch, {"solver_order": order}, last=last)
    a = ours(f"deis_{order}", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {}, rows=-1)
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 1), (2, 2), (3, 3), (2, 3), (3, 4)])
@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_diffusers_sa_solver(
    predictor: int, corrector: int, tau: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared before orders begin to fall towards the end, which is not the same end (see DEIS)."""
    times = np.append(np.arange(999, 0, -90), 0)
    grid, inner = d.grid.explicit(PROCESS, times), d.grid.explicit(PROCESS, times[:-1])
    settings = {
        "predictor_order": predictor,
        "corrector_order": corrector,
        "tau_func": lambda t: torch.tensor(tau, dtype=dtype),
    }
    peer = Peer("SASolverScheduler", inner, dtype, monkeypatch, settings, last=float(grid.sigma[-2] / grid.alpha[-2]))
    peer.run(epsilon, float(grid.sigma[0]))
    rows = len(inner) - 3
    options = {"predictor": predictor, "corrector": corrector, "tau": tau}
    a = ours("sa_solver", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, options, rows=rows)
    agree(a, peer.states[rows - 1], dtype)


def test_diffusers_lcm(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 only: theirs computes the boundary condition in it."""
    dtype = torch.float32
    grid = d.grid.explicit(PROCESS, [999, 759, 499, 259])
    peer = Peer("LCMScheduler", grid, dtype, monkeypatch, {"clip_sample": False})
    a = ours("lcm", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {})
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_diffusers_tcd(gamma: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs ends at training step 0, one evaluation before our clean end."""
    grid = d.grid.explicit(PROCESS, [900, 600, 300, 100, 0])
    inner = d.grid.explicit(PROCESS, [900, 600, 300, 100])
    peer = Peer("TCDScheduler", inner, dtype, monkeypatch, {})
    step = peer.scheduler.step
    peer.scheduler.step = lambda *args, **options: step(*args, eta=gamma, **options)
    a = ours("tcd", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {"gamma": gamma}, rows=-1)
    agree(a, peer.run(epsilon, float(grid.sigma[0])), dtype)


def test_diffusers_consistency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs adds the boundary condition to a raw network; ours is told the clean estimate."""
    diffusers = _needs("diffusers")
    sigmas, process, dtype = [80.0, 24.4, 5.84, 0.9], d.process.edm(), torch.float32
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    module = sys.modules[type(scheduler).__module__]
    calls = iter(range(1, 100))
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: draws(next(calls)).to(dtype))
    scheduler.set_timesteps(4)
    scheduler.sigmas = torch.tensor([*sigmas, 0.002])
    scheduler.timesteps = torch.tensor([250 * math.log(s) for s in sigmas])
    x = draws(0).to(dtype) * 80
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        scheduler.scale_model_input(x, t)
        skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
        raw = (edm_network(x, sigma.expand(2)) - skip * x) / out
        x = scheduler.step(raw, t, x, return_dict=False)[0]
    a = ours("consistency", d.grid.explicit(process, sigmas), d.Denoiser(edm_network, process, "x0"), dtype, {})
    agree(a, x, dtype)


SCALED = [
    ("euler", "EulerDiscreteScheduler", False),
    ("heun", "HeunDiscreteScheduler", True),
    ("dpm2", "KDPM2DiscreteScheduler", True),
    ("lms", "LMSDiscreteScheduler", False),
    ("euler_ancestral", "EulerAncestralDiscreteScheduler", False),
    ("dpm2_ancestral", "KDPM2AncestralDiscreteScheduler", True),
]


@pytest.mark.parametrize(("name", "theirs"), [("flow_euler", "Euler"), ("flow_heun", "Heun")])
def test_diffusers_flow(name: str, theirs: str) -> None:
    diffusers = _needs("diffusers")
    scheduler = getattr(diffusers, f"FlowMatch{theirs}DiscreteScheduler")(shift=3.0)
    scheduler.set_timesteps(9)
    process, dtype = d.process.flow(), torch.float32
    times = np.unique(scheduler.sigmas.double().numpy())[::-1][:-1]
    x = draws(0).to(dtype)
    for t in scheduler.timesteps:
        x = scheduler.step(epsilon(x, t.expand(2)), t, x, return_dict=False)[0]

    def network(x: Tensor, t: Tensor) -> Tensor:
        return epsilon(x, 1000 * t)

    a = ours(name, d.grid.explicit(process, times), d.Denoiser(network, process, "velocity"), dtype, {})
    agree(a, x, dtype)


def test_diffusers_dpm_solver_sde(monkeypatch: pytest.MonkeyPatch) -> None:
    """k-diffusion's SDE sampler in two calls; its Brownian tree is replaced by our draws."""
    diffusers = _needs("diffusers")
    _needs("torchsde")
    scheduler, dtype = diffusers.DPMSolverSDEScheduler(**BETAS, timestep_spacing="trailing"), torch.float32
    grid = d.grid.trailing(PROCESS, 10)
    scheduler.set_timesteps(10)
    path = _path()
    scheduler.noise_sampler = lambda a, b: path(torch.as_tensor(a), torch.as_tensor(b))
    x = draws(0).to(dtype) * float(grid.sigma[0] / grid.alpha[0])
    for t in scheduler.timesteps:
        x_in = scheduler.scale_model_input(x, t)
        # Theirs scales the middle's input by the level of the step's end; here it is asked where it is.
        if not scheduler.state_in_first_order:
            middle = scheduler.mid_point_sigma
            x_in = x / (middle**2 + 1) ** 0.5
            t = torch.as_tensor(PROCESS.time(-2 * math.log(float(middle))))
        x = scheduler.step(epsilon(x_in, t.to(dtype).expand(2)), t, x, return_dict=False)[0]
    a = ours("dpmpp_sde", grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {})
    agree(a, x, dtype)


@pytest.mark.parametrize(("name", "theirs", "twice"), SCALED, ids=lambda v: str(v))
def test_diffusers_in_ratio_space(name: str, theirs: str, twice: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs holds x / alpha, asks about x times alpha, and takes two calls for two evaluations."""
    diffusers = _needs("diffusers")
    kind, dtype = getattr(diffusers, theirs), torch.float32
    scheduler = kind(**BETAS, timestep_spacing="trailing")
    module, calls = sys.modules[kind.__module__], iter(range(1, 100))
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: draws(next(calls)).to(dtype))
    grid = d.grid.trailing(PROCESS, 10)
    scheduler.set_timesteps(10)
    x = draws(0).to(dtype) * float(grid.sigma[0] / grid.alpha[0])
    for t in scheduler.timesteps:
        x_in = scheduler.scale_model_input(x, t)
        x = scheduler.step(epsilon(x_in, t.to(dtype).expand(2)), t, x, return_dict=False)[0]
    a = ours(name, grid, d.Denoiser(epsilon, PROCESS, "epsilon"), dtype, {})
    agree(a, x, dtype)


@pytest.mark.parametrize(
    ("name", "algorithm"), [("dpmpp_3m", "dpmsolver++"), ("dpm_solver_3m", "dpmsolver")], ids=["clean", "noise"]
)
def test_diffusers_third_order_multistep_is_of_the_second(
    name: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exemption: the same missing 2 as in k-diffusion's 3M SDE; equal with two estimates, of order 2 with three."""
    long, short = d.grid.explicit(PROCESS, [999, 600, 0]), d.grid.explicit(PROCESS, [999, 600])
    settings = {"algorithm_type": algorithm, "solver_order": 3, "final_sigmas_type": "sigma_min"}
    last = float(long.sigma[-2] / long.alpha[-2])
    settings["lower_order_final"] = False
    peer = Peer("DPMSolverMultistepScheduler", short, torch.float32, monkeypatch, settings, last=last)
    a = ours(name, long, d.Denoiser(epsilon, PROCESS, "epsilon"), torch.float32, {}, rows=-1)
    agree(a, peer.run(epsilon, float(long.sigma[0])), torch.float32)

    exact = 0.5 + 69.5 * math.sqrt((0.36 + 0.05**2) / (0.36 + 80**2))

    def levels(steps: int) -> np.ndarray:
        return np.clip(np.linspace(80 ** (1 / 7), 0.05 ** (1 / 7), steps + 1) ** 7, 0.05, 80)

    def theirs(steps: int) -> float:
        # Their update in float64, on levels of ours; their step would round to float32.
        sigmas = torch.from_numpy(levels(steps))
        scheduler = peer.scheduler
        scheduler.sigmas, scheduler._step_index = sigmas, 0
        alpha = 1 / (1 + sigmas**2).sqrt()
        x, held = torch.full((1, 1, 1), 70.0, dtype=torch.float64) * alpha[0], list[Tensor]()
        for i in range(steps):
            scheduler._step_index = i
            clean = gaussian(x / alpha[i], sigmas[i : i + 1])
            held = [*held, clean if algorithm == "dpmsolver++" else (x / alpha[i] - clean) / sigmas[i]][-3:]
            update = (
                scheduler.dpm_solver_first_order_update,
                scheduler.multistep_dpm_solver_second_order_update,
                scheduler.multistep_dpm_solver_third_order_update,
            )[len(held) - 1]
            x = update(held[-1] if len(held) == 1 else held, sample=x)
        return float(x / alpha[-1])

    process = d.process.edm(0.05, 80.0)

    def mine(steps: int) -> float:
        plan = d.solvers.solver(name)(d.grid.explicit(process, levels(steps)))
        begin = torch.full((1, *SHAPE), 70.0 / 80, dtype=torch.float64)
        run = d.start(
            d.Denoiser(gaussian, process, "x0"), plan, shape=SHAPE, seeds=[0], noise=begin, dtype=torch.float64
        )
        while run.row < steps:
            run.step()
        return float(run.state[0, 0, 0])

    slopes = [_slope(end, exact, (256, 512)) for end in (theirs, mine)]
    print(slopes)
    assert slopes[0] < 2.3
    assert slopes[1] > 2.9
