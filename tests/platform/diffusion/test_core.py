"""Laws of the core: processes invert, plans converge at their order, noise has an address, runs resume to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from perrin import diffusion as d
from perrin.diffusion.denoiser import Output
from perrin.errors import InvalidInput, SamplingError, UnknownName

PROCESSES = {
    "linear": d.process.linear(),
    "scaled_linear": d.process.scaled_linear(),
    "cosine": d.process.cosine(),
    "edm": d.process.edm(),
    "flow": d.process.flow(),
}
MEAN, SPREAD = 0.3, 0.5


class Gaussian(d.Denoiser):
    """The exact denoiser of data N(MEAN, SPREAD^2): the oracle that every solver is measured with."""

    def __init__(self, process: d.process.Process) -> None:
        super().__init__(lambda x, t: x, process, "x0")

    def evaluate(self, x, point, condition):  # type: ignore[no-untyped-def]
        alpha, sigma = point.alpha[""], point.sigma[""]
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        return Output(MEAN + gain * (x - alpha * MEAN))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_time_inverts_log_snr(process: d.process.Process) -> None:
    t = np.linspace(process.t_min, process.t_max * 0.999, 513)
    assert_allclose(process.time(process.log_snr(t)), t, rtol=1e-10, atol=1e-10)
    assert (np.diff(process.log_snr(t)) < 0).all()
    alpha, sigma = process.scales(process.log_snr(t))
    assert_allclose(alpha, process.alpha(t), rtol=1e-10)
    assert_allclose(sigma, process.sigma(t), rtol=1e-9)


@pytest.mark.parametrize("process", [PROCESSES[n] for n in ("linear", "scaled_linear", "cosine")])
def test_betas_preserve_variance(process: d.process.Process) -> None:
    t = np.linspace(0, 999, 333)
    assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1, rtol=1e-12)


def test_linear_betas_give_ddpms_alpha_bar() -> None:
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert_allclose(d.process.linear().alpha(np.arange(1000)) ** 2, bar, rtol=1e-10)


@pytest.mark.parametrize("prediction", d.prediction.PREDICTIONS)
def test_a_perfect_network_gives_the_clean_sample(prediction: str) -> None:
    """Each prediction's target, put through its coefficients, is x_0."""
    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 64))
    t = np.full(64, 0.37)
    alpha, sigma = np.full(64, 0.63), np.full(64, 0.37)
    x = alpha * x0 + sigma * noise
    targets = {
        "epsilon": noise,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "velocity": noise - x0,
    }
    c = d.prediction.coefficients(prediction, t, alpha, sigma)
    target = targets.get(prediction, (x0 - c.c_skip * x) / c.c_out)
    assert_allclose(c.c_skip * x + c.c_out * target, x0, rtol=1e-9, atol=1e-9)


def test_edm_preconditioning_is_karras_table_1() -> None:
    sigma = np.array([0.002, 0.5, 80.0])
    c = d.prediction.coefficients("edm", sigma, np.ones(3), sigma)
    assert_allclose(c.c_in, 1 / np.sqrt(sigma**2 + 0.25))
    assert_allclose(c.c_noise, np.log(sigma) / 4)
    assert_allclose(c.c_skip, 0.25 / (sigma**2 + 0.25))
    assert_allclose(c.c_out, 0.5 * sigma / np.sqrt(sigma**2 + 0.25))


def _exact(process: d.process.Process, grid: d.grid.Grid, x: torch.Tensor) -> torch.Tensor:
    """The probability flow of Gaussian data, in closed form: the standard score is conserved."""
    a, s = float(grid.alpha[0]), float(grid.sigma[0])
    return MEAN + SPREAD * (x - a * MEAN) / float(np.sqrt(a**2 * SPREAD**2 + s**2))


@pytest.mark.parametrize(
    ("name", "process"), [("ddim", "edm"), ("dpmpp_2m", "edm"), ("flow_euler", "flow"), ("ddim", "flow")]
)
def test_declared_order_is_reached(name: str, process: str) -> None:
    """Error against the closed form, down to a small noise level, regressed over the number of steps."""
    proc = PROCESSES[process]
    solver = d.solvers.solver(name)
    x = torch.linspace(-2, 2, 33, dtype=torch.float64)[:, None]
    errors = []
    counts = [64, 128, 256, 512]
    for steps in counts:
        root = 7.0 if process == "edm" else 1.0
        times = np.linspace((proc.t_max * 0.99) ** (1 / root), 0.05 ** (1 / root), steps) ** root
        grid = d.grid.explicit(proc, times)
        # The clean end costs one first-order step; leave it out, and compare at the last evaluated time.
        plan = solver(grid)
        run = d.start(Gaussian(proc), plan, shape=(1,), seeds=range(33), noise=x, dtype=torch.float64)
        while run.row < steps - 1:
            run.step()
        end = d.grid.explicit(proc, grid.times[-1:])
        a, s = float(end.alpha[0]), float(end.sigma[0])
        start = plan.start * x
        exact = a * MEAN + (_exact(proc, grid, start) - MEAN) / SPREAD * float(np.sqrt(a**2 * SPREAD**2 + s**2))
        errors.append(float((run.state - exact).square().mean().sqrt()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert solver.order is not None
    assert slope > solver.order - 0.1, (slope, errors)


def test_ddpm_keeps_the_distribution() -> None:
    proc = PROCESSES["linear"]
    x = d.sample(Gaussian(proc), d.solvers.ddpm(d.grid.trailing(proc, 500)), shape=(400,), seeds=range(25))
    assert abs(float(x.mean()) - MEAN) < 0.02
    assert abs(float(x.std()) - SPREAD) < 0.02


def test_ddim_with_eta_one_is_ddpm() -> None:
    grid = d.grid.trailing(PROCESSES["linear"], 50)
    noise = {i: torch.randn(4, 3, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(60)}
    ddim, ddpm = d.solvers.ddim(grid, eta=1.0), d.solvers.ddpm(grid)
    options = {"shape": (3,), "seeds": range(4), "noise": noise.__getitem__, "dtype": torch.float64}
    oracle = Gaussian(PROCESSES["linear"])
    assert_allclose(d.sample(oracle, ddim, **options), d.sample(oracle, ddpm, **options), rtol=1e-9)


def test_flow_euler_is_ddim_in_flow_time() -> None:
    grid = d.grid.shifted(PROCESSES["flow"], 13, shift=2.0)
    options = {"shape": (5,), "seeds": [1, 2], "dtype": torch.float64}
    oracle = Gaussian(PROCESSES["flow"])
    a = d.sample(oracle, d.solvers.flow_euler(grid), **options)
    assert_allclose(a, d.sample(oracle, d.solvers.ddim(grid), **options), rtol=1e-12)


@pytest.mark.parametrize("name", d.solvers.SOLVERS)
def test_steps_are_evaluations(name: str) -> None:
    calls = []

    class Counting(Gaussian):
        def evaluate(self, *args):  # type: ignore[no-untyped-def]
            calls.append(1)
            return super().evaluate(*args)

    plan = d.solvers.solver(name)(d.grid.linspace(PROCESSES["flow"], 9))
    d.sample(Counting(PROCESSES["flow"]), plan, shape=(2,), seeds=[0])
    assert len(plan) == len(calls)
    assert len(plan) == 9 or not d.solvers.solver(name).one_each


@given(seed=st.integers(0, 2**53 - 1), draw=st.integers(0, 10_000), size=st.integers(1, 50))
def test_noise_depends_on_its_address_alone(seed: int, draw: int, size: int) -> None:
    one = d.noise.normal(seed, draw, (size,))
    assert (one == d.noise.normals([5, seed], draw, (size,))[1]).all()
    assert (one == d.noise.Draws([seed], (size,), "", [draw - 2, draw, draw + 7])(draw)[0]).all()
    assert (one != d.noise.normal(seed, draw + 1, (size,))).any()
    assert (one != d.noise.normal(seed, draw, (size,), field="atoms")).any()
    assert (one != d.noise.normal(seed, draw, (size,), sample=1)).any()


def test_noise_is_standard_normal_and_stays_what_it_was() -> None:
    noise = d.noise.normal(7, 0, (200_001,)).astype(np.float64)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    # Pinned: changing these changes every picture that anybody has made.
    assert_allclose(d.noise.normal(7, 0, (4,)), PINNED, rtol=1e-6)


PINNED = [-1.7777090072631836, -0.6932172775268555, 0.9758835434913635, 0.46861663460731506]


@pytest.mark.parametrize("name", d.solvers.SOLVERS)
@pytest.mark.parametrize("row", [0, 1, 5, 9])
def test_resuming_gives_the_same_bits(name: str, row: int) -> None:
    process = PROCESSES["flow"]
    plan = d.solvers.solver(name)(d.grid.linspace(process, 10))

    def fresh() -> d.Run:
        return d.start(Gaussian(process), plan, shape=(3, 4), seeds=[11, 12])

    whole = fresh().run()
    first = fresh()
    for _ in range(row):
        first.step()
    second = fresh()
    second.restore(first.save())
    assert second.row == row
    assert torch.equal(second.run(), whole)


def test_resuming_in_another_process(tmp_path: Path) -> None:
    """The state is bytes: a process that shares nothing but them ends with the same bits."""
    code = """
import sys, torch
from perrin import diffusion as d
process = d.process.cosine()
network = lambda x, t: torch.tanh(x) * (t / 1000).view(-1, 1)
plan = d.solvers.ddpm(d.grid.trailing(process, 12))
run = d.start(d.Denoiser(network, process, "v"), plan, shape=(5,), seeds=[3, 4])
path = sys.argv[1]
if sys.argv[2] == "save":
    for _ in range(7): run.step()
    open(path, "wb").write(run.save())
elif sys.argv[2] == "go on":
    run.restore(open(path, "rb").read())
print(run.run().numpy().tobytes().hex())
"""

    def go(mode: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "state"), mode], capture_output=True, text=True, check=True
        )
        return done.stdout

    assert go("save") == go("go on") == go("whole")


def test_a_sample_is_the_same_alone_and_in_a_batch() -> None:
    process = PROCESSES["flow"]
    plan = d.solvers.ddpm(d.grid.linspace(process, 10))
    together = d.sample(Gaussian(process), plan, shape=(7,), seeds=[1, 2, 3])
    assert torch.equal(together[1:2], d.sample(Gaussian(process), plan, shape=(7,), seeds=[2]))


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v", "score", "edm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mixed_batch_gives_the_bits_of_each_alone(prediction: str, dtype: torch.dtype) -> None:
    """Runs of other solvers, lengths and guidance, evaluated in one batch as an engine does it."""
    process = d.process.cosine()

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x * 0.3 + c * (1 + t.view(-1, 1) / 1000)

    denoiser = d.Denoiser(network, process, prediction)
    null = {"c": torch.zeros(1, 1, dtype=dtype)}
    given = {"c": torch.full((1, 1), 0.7, dtype=dtype)}
    wanted = [
        (denoiser, d.solvers.ddim(d.grid.trailing(process, 7)), [1, 2]),
        (d.guidance.classifier_free(denoiser, 3.0, null), d.solvers.dpmpp_2m(d.grid.karras(process, 5)), [3]),
        (d.guidance.cfg_plus_plus(denoiser, 0.5, null), d.solvers.ddpm(d.grid.log_snr(process, 9)), [2, 4, 5]),
    ]

    def runs() -> list[d.Run]:
        return [d.start(g, p, shape=(6,), seeds=s, condition=given, dtype=dtype) for g, p, s in wanted]

    alone = [run.run() for run in runs()]
    together = runs()
    while active := [run for run in together if not run.done]:
        requests = [
            (run, request, branch) for run in active for request in [run.request()] for branch in request.branches
        ]
        sizes = [len(request.x) for _, request, _ in requests]
        point = d.guidance.base.Point(
            np.repeat([request.point.t for _, request, _ in requests], sizes),
            {"": np.repeat([request.point.alpha[""] for _, request, _ in requests], sizes)},
            {"": np.repeat([request.point.sigma[""] for _, request, _ in requests], sizes)},
        )
        x = torch.cat([request.x for _, request, _ in requests])
        c = torch.cat([b.condition["c"].expand(n, 1) for (_, _, b), n in zip(requests, sizes, strict=True)])
        parts = denoiser.evaluate(x, point, {"c": c}).clean.split(sizes)
        for run in active:
            mine = [(q, part) for (other, q, _), part in zip(requests, parts, strict=True) if other is run]
            run.apply(mine[0][0], [Output(part) for _, part in mine])
    for run, result in zip(together, alone, strict=True):
        assert torch.equal(run.result, result)


@pytest.mark.parametrize("name", d.solvers.SOLVERS)
def test_the_loop_never_waits_for_the_device(name: str) -> None:
    """A tensor on the meta device has no values: reading one, which is what a synchronisation is, raises."""
    process = PROCESSES["flow"]
    denoiser = d.Denoiser(lambda x, t, c: x * 0.5 + c, process, "velocity")
    guided = d.guidance.apg(denoiser, 3.0, {"c": torch.zeros(1, 1, device="meta")})
    plan = d.solvers.solver(name)(d.grid.linspace(process, 6))
    condition = {"c": torch.ones(1, 1, device="meta")}
    run = d.start(guided, plan, shape=(4,), seeds=[1, 2], condition=condition, device="meta")
    while not run.done:
        run.step()
    with pytest.raises(NotImplementedError, match="meta tensor"):
        _ = run.result  # the one place that waits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_loop_never_synchronises_a_gpu() -> None:
    process = PROCESSES["flow"]
    denoiser = d.Denoiser(lambda x, t, c: x * 0.5 + c, process, "velocity")
    guided = d.guidance.apg(denoiser, 3.0, {"c": torch.zeros(1, 1, device="cuda")})
    condition = {"c": torch.ones(1, 1, device="cuda")}
    for solver in d.solvers.SOLVERS.values():
        plan = solver(d.grid.linspace(process, 6))
        run = d.start(guided, plan, shape=(4,), seeds=[1, 2], condition=condition, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            while not run.done:
                run.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(run.result).all(), solver.name


def test_guidance_interpolates_and_scale_one_costs_one_evaluation() -> None:
    process = PROCESSES["flow"]
    batches: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        return c.expand_as(x)

    denoiser = d.Denoiser(network, process, "x0")
    null = {"c": torch.zeros(1, 1)}
    options = {"shape": (1,), "seeds": [0, 1], "condition": {"c": torch.ones(1, 1)}}
    plan = d.solvers.ddim(d.grid.linspace(process, 1))
    out = d.sample(d.guidance.classifier_free(denoiser, scale=2.5, null=null), plan, **options)
    assert_allclose(out, 2.5)
    assert batches == [4]
    batches.clear()
    d.sample(d.guidance.classifier_free(denoiser, scale=1.0, null=null), plan, **options)
    assert batches == [2]


def test_bad_input_is_named() -> None:
    flow = PROCESSES["flow"]
    with pytest.raises(InvalidInput, match="strictly decreasing"):
        d.grid.explicit(flow, [0.2, 0.5])
    with pytest.raises(InvalidInput, match="steps: got 0"):
        d.grid.linspace(flow, 0)
    with pytest.raises(InvalidInput, match="above 0 noise"):
        d.grid.explicit(flow, [0.5, 0.0])
    with pytest.raises(UnknownName, match="one of ddim"):
        d.solvers.solver("euler_maruyama")
    with pytest.raises(InvalidInput, match="rectified-flow"):
        d.solvers.flow_euler(d.grid.linspace(PROCESSES["edm"], 5))
    with pytest.raises(InvalidInput, match="eta"):
        d.solvers.ddim(d.grid.linspace(flow, 5), eta=2.0)
    with pytest.raises(UnknownName, match="process"):
        d.process.from_config({"kind": "warp"})
    plan = d.solvers.ddim(d.grid.linspace(flow, 3))
    with pytest.raises(InvalidInput, match="seed"):
        d.sample(Gaussian(flow), plan, shape=(1,), seeds=[])
    with pytest.raises(InvalidInput, match="noise"):
        d.sample(Gaussian(flow), plan, shape=(2,), seeds=[1], noise=torch.zeros(1, 3))
    run = d.start(Gaussian(flow), plan, shape=(1,), seeds=[1])
    with pytest.raises(SamplingError, match="row 0 of 3"):
        _ = run.result
    with pytest.raises(InvalidInput, match="another seeds"):
        d.start(Gaussian(flow), plan, shape=(1,), seeds=[2]).restore(run.save())
    epsilon = d.Denoiser(lambda x, t: x, flow, "epsilon")
    with pytest.raises(InvalidInput, match="epsilon at alpha = 0"):
        d.sample(epsilon, d.solvers.ddim(d.grid.trailing(flow, 3)), shape=(1,), seeds=[1])
    with pytest.raises(InvalidInput, match="saved sampler state"):
        run.restore(b"not a state")


def test_nan_stops_at_its_row() -> None:
    process = PROCESSES["flow"]
    denoiser = d.Denoiser(lambda x, t: x * float("nan") if float(t[0]) < 0.6 else x, process, "x0")
    with pytest.raises(SamplingError, match="row 3 of 5"):
        d.sample(denoiser, d.solvers.ddim(d.grid.trailing(process, 5)), shape=(2,), seeds=[1])
