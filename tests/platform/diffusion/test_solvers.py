"""Laws of the solvers: orders on a mixture and on the coefficients alone, distributions, bounds of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose

from perrin import diffusion as d
from perrin.diffusion.denoiser import Output, Point
from perrin.diffusion.plan import Draw
from perrin.diffusion.solvers._weights import collocation, moments
from perrin.diffusion.solvers.order import measured_order
from perrin.errors import InvalidInput

WEIGHTS, MEANS, SPREADS = (0.5, 0.3, 0.2), (-1.0, 0.5, 2.0), (0.25, 0.1, 0.5)
EDM = d.process.edm()
SOLVERS = d.solvers.SOLVERS
FLOW = ("flow_euler", "flow_heun")
ORDERED = [name for name, solver in SOLVERS.items() if solver.order is not None and name not in FLOW]
STOCHASTIC = [n for n, s in SOLVERS.items() if s.stochastic and n not in ("consistency", "lcm", "tcd")]


class Mixture(d.Denoiser):
    """The exact denoiser of a one-dimensional Gaussian mixture, applied to every element."""

    def __init__(self, process: d.process.Process = EDM) -> None:
        super().__init__(lambda x, t: x, process, "x0")

    def evaluate(self, x, point, condition):  # type: ignore[no-untyped-def]
        alpha, sigma = point.alpha[""], point.sigma[""]
        y = x / alpha
        square = y * y
        parts = []
        for w, m, s in zip(WEIGHTS, MEANS, SPREADS, strict=True):
            v = s * s + (sigma / alpha) ** 2
            # log density as a parabola, and the mean given y as a line.
            log = (math.log(w / math.sqrt(v)) - m * m / 2 / v, m / v, -0.5 / v)
            parts.append((log, (m - m * s * s / v, s * s / v)))
        # The widest component is the unit: the others' densities over its own are bounded.
        top, line = parts.pop()
        clean, total = y * line[1] + line[0], torch.ones_like(y)
        for log, (shift, gain) in parts:
            ratio = square.mul(log[2] - top[2]).add_(y, alpha=log[1] - top[1]).add_(log[0] - top[0]).exp_()
            clean += y.mul(gain).add_(shift).mul_(ratio)
            total += ratio
        return Output(clean.div_(total))


STARTS = torch.tensor([NormalDist().inv_cdf((i + 0.5) / 64) for i in range(64)], dtype=torch.float64)


def karras(intervals: int) -> d.grid.Grid:
    """sigma 80 -> .002 in so many intervals, and the clean end after them."""
    times = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), intervals + 1) ** 7
    return d.grid.explicit(EDM, np.clip(times, 0.002, 80))


def run_to_last(name: str, grid: d.grid.Grid, begin: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """The state at the grid's last time: every row but the last, which goes to the clean end.

    ``begin`` holds states at the second and later times, put in place of what the first rows give.
    """
    plan = SOLVERS[name](grid)
    assert plan.rows[-1].t == grid.times[-1]
    run = d.start(Mixture(), plan, shape=(64,), seeds=[0], noise=STARTS[None], dtype=torch.float64)
    while run.row < len(plan) - 1:
        run.step()
        if run.row <= len(begin):
            run._registers[""][0] = begin[run.row - 1][None]
    return run.state[0]


Reference = Callable[[npt.ArrayLike], list[torch.Tensor]]


@pytest.fixture(scope="module")
def reference() -> Reference:
    """States at given noise levels, by DOP853."""
    scipy = pytest.importorskip("scipy.integrate")

    def slope(lam: float, y: np.ndarray) -> np.ndarray:
        point = Point(0.0, {"": 1.0}, {"": math.exp(-lam)})
        return Mixture().evaluate(torch.from_numpy(y), point, {}).clean.numpy() - y

    span = (-math.log(80), -math.log(0.002))
    options = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-13, "dense_output": True}
    found = scipy.solve_ivp(slope, span, 80 * STARTS.numpy(), **options).sol
    assert_allclose(found(span[1])[[0, 31, 63]], [-1.5385821343, -0.4646373316, 2.8802696405], atol=2e-10)
    return lambda sigma: list(torch.from_numpy(found(-np.log(np.asarray(sigma))).T.copy()))


# A step of a singlestep method is a block of grid intervals.
BLOCK = {"dpm_solver_2s": 2, "dpmpp_2s": 2, "res_2s": 2, "dpm_solver_3s": 3, "dpmpp_3s": 3, "res_3s": 3}

# At 64 steps of this grid these are ahead of their own asymptote, so their slopes grow (those of LMS between doublings
# from 64 on: 3.33 3.75 3.91 3.96): they are regressed from here on.
FIRST = {"lms": 256, "deis_3": 128, "dpm_solver_3m": 128}

# Rows that begin with less than the method's order where it shows; they are given the reference's values.
BEGIN = {"lms": 3, "eab4": 3}

TABLE = {
    "euler": {16: 1.65e-1, 64: 4.73e-2, 256: 1.24e-2, 1024: 3.06e-3},
    "ddim": {16: 1.65e-1, 64: 4.73e-2, 256: 1.24e-2, 1024: 3.06e-3},
    "heun": {16: 5.44e-2, 64: 3.45e-3, 256: 2.09e-4, 1024: 1.29e-5},
    "dpmpp_2m": {16: 8.81e-2, 64: 4.16e-3, 256: 2.53e-4, 1024: 1.56e-5},
    "eab3": {16: 1.13e-1, 64: 1.09e-3, 256: 1.69e-5, 1024: 2.55e-7},
}


@pytest.mark.parametrize("name", ORDERED)
def test_declared_order_is_reached_on_the_mixture(name: str, reference: Reference) -> None:
    first = FIRST.get(name, 64)
    counts = [c for c in (64, 128, 256, 512, 1024) if c >= first]

    def error(count: int) -> float:
        grid = karras(count * BLOCK.get(name, 1))
        end = run_to_last(name, grid, reference(grid.times[1:])[: BEGIN.get(name, 0)])
        return float((end - reference([0.002])[0]).square().mean().sqrt())

    errors = {count: error(count) for count in sorted({*counts, *TABLE.get(name, {})})}
    slope = -np.polyfit(np.log(counts), np.log([errors[c] for c in counts]), 1)[0]
    print(f"{name}: slope {slope:.3f}, error at 1024 {errors[1024]:.3g}")
    assert slope >= SOLVERS[name].order - 0.1, (slope, errors)
    for count, known in TABLE.get(name, {}).items():
        assert errors[count] <= 1.1 * known


@pytest.mark.parametrize("name", [*ORDERED, *FLOW])
def test_declared_order_holds_on_the_coefficients(name: str) -> None:
    order = SOLVERS[name].order
    assert order is not None
    assert measured_order(SOLVERS[name]) >= order - 0.1


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("lms", {"order": 2}, 2),
        ("lms", {"order": 3}, 3),
        ("dpm_solver_2s", {"variant": "heun"}, 2),
        ("dpm_solver_3s", {"variant": "midpoint"}, 3),
        ("dpm_solver_3s", {"variant": "heun"}, 3),
        ("dpmpp_2s", {"variant": "heun"}, 2),
        ("dpmpp_3s", {"variant": "heun"}, 3),
        ("dpmpp_3s", {"variant": "midpoint"}, 3),
        ("unipc_2", {"variant": "bh1"}, 3),
        ("unipc_3", {"variant": "bh1"}, 3),
        ("dpmpp_2m_sde", {"eta": 0.0}, 2),
        ("dpmpp_2m_sde", {"eta": 0.0, "variant": "heun"}, 2),
        ("dpmpp_3m_sde", {"eta": 0.0}, 3),
        ("dpmpp_sde", {"eta": 0.0}, 2),
        ("dpm2_ancestral", {"eta": 0.0}, 2),
        ("edm_churn", {"s_churn": 0.0}, 2),
        ("restart", {"repeats": 0}, 2),
        ("sa_solver", {"tau": 0.0}, 1.95),
        ("sa_solver", {"tau": 0.0, "predictor": 3, "corrector": 4}, 3),
    ],
)
def test_options_keep_the_order(name: str, options: dict[str, Any], order: float) -> None:
    """Stochastic solvers without their noise are solvers of the flow, and variants are of the same order."""
    assert measured_order(SOLVERS[name], **options) >= order - 0.1


def exact_draws(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    which = rng.choice(3, count, p=WEIGHTS)
    return np.asarray(MEANS)[which] + np.asarray(SPREADS)[which] * rng.standard_normal(count)


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """p-value of the two-sample test, by Kolmogorov's series."""
    both = np.concatenate([a, b])
    gap = np.searchsorted(np.sort(a), both, "right") / len(a) - np.searchsorted(np.sort(b), both, "right") / len(b)
    z = float(np.abs(gap).max()) * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * z) ** 2) for k in range(1, 101)))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samples_have_the_distribution_of_the_data(name: str) -> None:
    """100,000 samples at 1,000 steps; the draws are torch's, as a million of them is a matter of milliseconds there."""
    count, generator = 100_000, torch.Generator().manual_seed(11)
    plan = SOLVERS[name](d.grid.karras(EDM, 1000))

    kept: dict[int, torch.Tensor] = {}

    def noise(index: int) -> torch.Tensor:
        # Rows may share a draw, and only near ones do.
        if index not in kept:
            for old in [i for i in kept if i < index - 6]:
                del kept[old]
            kept[index] = torch.randn(1, count, generator=generator)
        return kept[index]

    samples = d.sample(Mixture(), plan, shape=(count,), seeds=[0], noise=noise)[0].double().numpy()
    assert kolmogorov_smirnov(samples, exact_draws(count)) > 1e-3


@pytest.mark.parametrize("name", SOLVERS)
def test_below_the_minimum_is_named(name: str) -> None:
    minimum = SOLVERS[name].minimum
    flow = d.process.flow()
    for process in (flow, d.process.linear(), EDM):
        if name not in FLOW or process is flow:
            plan = SOLVERS[name](d.grid.linspace(process, minimum))
            assert all(math.isfinite(w) for row in plan.rows for _, terms in row.writes for _, w in terms)
    if minimum > 1:
        with pytest.raises(InvalidInput, match=f"at least {minimum} for {name}"):
            SOLVERS[name](d.grid.linspace(flow, minimum - 1))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("process", ["flow", "linear", "edm"])
def test_a_perfect_denoiser_ends_at_the_clean_sample(name: str, process: str) -> None:
    """Where the estimate is known from the start, every solver ends there: weights of x and D are consistent."""
    made = getattr(d.process, process)()
    if name in FLOW and process != "flow":
        return
    clean = torch.linspace(-2, 2, 5, dtype=torch.float64)[None]

    class Known(Mixture):
        def evaluate(self, x, point, condition):  # type: ignore[no-untyped-def]
            return Output(clean)

    plan = SOLVERS[name](d.grid.linspace(made, 12))
    x = d.sample(Known(made), plan, shape=(5,), seeds=[3], dtype=torch.float64)
    if name in ("lms", "pndm", "plms", "ipndm"):
        # These extrapolate the noise to the end, and from a random start the noise is not constant along the way.
        return
    if name == "lcm" and process == "linear":
        assert_allclose(x, clean, atol=0.2)
        return
    assert_allclose(x, clean, atol=1e-9)


def test_a_tail_begins_at_the_nearest_time_and_keeps_the_rest() -> None:
    grid = d.grid.shifted(d.process.flow(), 10, shift=2.5)
    for part in np.linspace(0, 1, 23):
        tail = grid.tail(float(part))
        distance = abs(grid.times - part)
        assert abs(tail.times[0] - part) == distance.min()
        first = len(grid) - len(tail)
        for name in ("times", "alpha", "sigma"):
            assert_allclose(getattr(tail, name), getattr(grid, name)[first:], rtol=0)
    assert SOLVERS["dpmpp_2m"](grid.tail(1)).digest == SOLVERS["dpmpp_2m"](grid).digest
    assert len(grid.tail(0)) == 1
    for part in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidInput, match="at least 0 and at most 1"):
            grid.tail(part)


@pytest.mark.parametrize("name", SOLVERS)
def test_from_the_middle_the_first_row_sees_the_sample_noised_to_its_level(name: str) -> None:
    """A plan compiled on a tail begins at alpha x + sigma n, and a denoiser that knows x brings it back."""
    clean = torch.linspace(-2, 2, 5, dtype=torch.float64)[None]
    seen: list[torch.Tensor] = []

    class Known(Mixture):
        def evaluate(self, x, point, condition):  # type: ignore[no-untyped-def]
            seen.append((x - point.alpha[""] * clean) / point.sigma[""])
            return Output(clean)

    process = d.process.flow()
    tail = d.grid.linspace(process, 20).tail(0.6)
    options: dict[str, Any] = {"shape": (5,), "seeds": [3], "dtype": torch.float64, "initial": clean}
    x = d.sample(Known(process), SOLVERS[name](tail), **options)
    if name not in ("edm_churn", "restart", "sa_solver"):  # these move the noise before they look
        assert_allclose(seen[0], torch.from_numpy(d.noise.normals([3], 0, (5,))), rtol=1e-9)
    assert_allclose(x, clean, atol=1e-9)


@pytest.mark.parametrize("name", [n for n, s in SOLVERS.items() if not s.stochastic])
def test_the_direction_holds_what_is_kept_of_the_noise(name: str) -> None:
    """CFG++ re-noises along another estimate: the first row gives it what a DDIM step would."""
    grid = d.grid.explicit(d.process.flow(), [0.9, 0.7, 0.6, 0.5, 0.3, 0.1])
    first = SOLVERS[name](grid).rows[0]
    weights = dict(dict(first.writes)[0])
    target = SOLVERS[name](grid).rows[1]
    assert_allclose(weights["direction"], -first.alpha * target.sigma / first.sigma, rtol=1e-9)


def test_draws_are_numbered_apart_from_the_start() -> None:
    for solver in SOLVERS.values():
        plan = solver(d.grid.linspace(d.process.flow(), 9))
        terms = [t for row in plan.rows for part in (row.input, *(w for _, w in row.writes)) for t in part]
        draws = {source.index for source, _ in terms if isinstance(source, Draw)}
        assert 0 not in draws
        assert bool(draws) == solver.stochastic or solver.name in ("edm_churn", "restart")


def test_learned_variance_lies_between_small_and_large() -> None:
    grid = d.grid.trailing(d.process.linear(), 10)
    plans = {v: SOLVERS["ddpm"](grid, variance=v) for v in ("small", "large", "learned")}
    for small, large, learned in zip(*(p.rows[:-1] for p in plans.values()), strict=True):
        assert learned.learned is not None
        logs = [2 * math.log(w) for r in (small, large) for s, w in r.writes[0][1] if isinstance(s, Draw)]
        assert_allclose(learned.learned, logs, rtol=1e-9)
    assert plans["learned"].rows[-1].learned is None


@pytest.mark.parametrize("z", [-40.0, -3.0, -1e-9, 0.0, 1e-12, 1e-3, 0.7, 29.0, 31.0, 500.0])
def test_moments_are_integrals(z: float) -> None:
    x, w = np.polynomial.legendre.leggauss(200)
    u = (x + 1) / 2
    for k, made in enumerate(moments(z, 5)):
        # Substituting spreads the boundary layer of a large z over the interval.
        v = u**4 if z > 20 else u
        weight = w / 2 * (4 * u**3 if z > 20 else 1)
        assert_allclose(made, np.sum(weight * np.exp(-z * v) * (1 - v) ** k), rtol=1e-12)


def test_collocation_integrates_polynomials() -> None:
    nodes, gains = [0.0, -1.2, -2.9, 1.0], moments(0.3, 4)
    weights = collocation(nodes, gains)
    for k in range(4):
        assert_allclose(sum(w * u**k for w, u in zip(weights, nodes, strict=True)), gains[k], rtol=1e-12)


def test_churn_and_restart_go_up_and_come_down() -> None:
    grid = d.grid.karras(EDM, 30)
    churned = SOLVERS["edm_churn"](grid, s_churn=10.0).rows
    ratios = [row.sigma for row in churned]
    assert max(b / a for a, b in pairwise(ratios)) > 1
    again = SOLVERS["restart"](grid, repeats=2, inner=3)
    assert len(again) == len(SOLVERS["heun"](grid)) + 2 * 3 * 2
    assert sum(row.sigma == pytest.approx(0.3) for row in again.rows) == 2


BETWEEN = {"dpm2", "dpm2_ancestral", "edm_churn", "dpmpp_sde", "restart"}


@pytest.mark.parametrize("name", [n for n in SOLVERS if n not in BETWEEN | {"flow_euler", "flow_heun"}])
def test_channels_of_their_own_process_do_not_meet(name: str) -> None:
    """Each channel ends where it ends with its process alone."""
    parts = [d.process.cosine(), d.process.linear()]
    process = d.process.per_channel(parts)
    noise = np.random.default_rng(1).normal(size=(60, 2, 2, 3))

    class Line(d.Denoiser):
        def __init__(self, process: d.process.Process) -> None:
            super().__init__(lambda x, t: 0.9 * x + 0.1 * torch.sin(t / 300).view(-1, 1, 1), process, "epsilon")

    def run(process: d.process.Process, draws: np.ndarray) -> torch.Tensor:
        plan = SOLVERS[name](d.grid.trailing(process, 8))
        options = {"shape": draws.shape[2:], "seeds": [0, 1], "dtype": torch.float64}
        return d.sample(Line(process), plan, noise=lambda i: draws[i], **options)

    together = run(process, noise)
    for c, part in enumerate(parts):
        assert_allclose(together[:, c : c + 1], run(part, noise[:, :, c : c + 1]), rtol=1e-9)


def test_channels_must_agree_on_times() -> None:
    grid = d.grid.trailing(d.process.per_channel([d.process.cosine(), d.process.linear()]), 8)
    for name in ("dpm2", "dpmpp_sde"):
        with pytest.raises(InvalidInput, match="at grid points"):
            SOLVERS[name](grid)
    with pytest.raises(InvalidInput, match="learn no variance"):
        SOLVERS["ddpm"](grid, variance="learned")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpm2_ancestral", {"eta": 2.0}),
        ("dpmpp_sde", {"r": 1.0}),
        ("dpmpp_2m_sde", {"variant": "exact"}),
        ("dpm_solver_3s", {"variant": "bh1"}),
        ("ddpm", {"variance": "medium"}),
        ("edm_churn", {"s_churn": -1.0}),
        ("er_sde", {"order": 4}),
        ("lms", {"order": 5}),
        ("restart", {"s_min": 2.0}),
        ("sa_solver", {"tau": -1.0}),
        ("sa_solver", {"corrector": 7}),
        ("tcd", {"gamma": 1.5}),
        ("unipc_2", {"variant": "exact"}),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SOLVERS[name](d.grid.linspace(EDM, 6), **options)
