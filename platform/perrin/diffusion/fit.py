r"""Calibrated plans: since a plan is data, it can be fitted to a model.

The plan may use every estimate so far, and its spacing and weights are free: with lambda = log(alpha / sigma),

.. math:: x_{i+1} = k_i \frac{\sigma_{i+1}}{\sigma_i} x_i
    + \alpha_{i+1} (1 - e^{-h_i}) \sum_{j \le i} w_{ij} D_{i-j}, \qquad h_i = \lambda_{i+1} - \lambda_i

which starts at k = 1 and the third-order exponential Adams-Bashforth weights. All are moved together so that a handful
of seeds end where a fine reference run ends, by Levenberg-Marquardt with a Jacobian from finite differences; the model
is a black box, and any guidance may be on it. Fitted on some seeds, it is judged on others.

References:
    Levenberg (1944), Marquardt (1963); Nocedal and Wright, Numerical Optimization, section 10.3;
    Hochbruck and Ostermann, Exponential Integrators (2010), section 2.5;
    Shaul et al., Bespoke Non-Stationary Solvers (2024), for weights on the whole history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from perrin.diffusion.denoiser import Denoiser, Output
from perrin.diffusion.grid import Grid, explicit
from perrin.diffusion.guidance import Guidance, evaluate
from perrin.diffusion.plan import Plan, Source, row
from perrin.diffusion.process import Array, Process
from perrin.diffusion.sampling import Evaluation, Run
from perrin.errors import InvalidInput

__all__ = ["Fit", "fit", "fit_plan"]


@dataclass(frozen=True)
class Fit:
    """What came out.

    Attributes:
        plan: the fitted plan.
        before: root mean square distance from the reference with the starting plan.
        after: with the fitted one, on the same seeds.
    """

    plan: Plan
    before: float
    after: float


def fit(
    runs: Sequence[Run],
    process: Process,
    start: Grid,
    reference: Plan,
    *,
    iterations: int = 20,
    ridge: float = 1e-5,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> Fit:
    """Fit a plan of ``len(start)`` evaluations to where ``reference`` ends.

    Args:
        runs: the model as it will be sampled, with the conditions, seeds and type to fit on, under any plan; they are
            only read. The fitted plan should then be judged on other seeds.
        process: the model's forward process.
        start: grid to start from; its first time stays.
        reference: a fine deterministic plan on the same process that starts at the same time.
        iterations: of Levenberg-Marquardt.
        ridge: pull towards the starting weights, relative to the curvature; more generalises better, fits less.
        progress: told after every iteration.

    Raises:
        InvalidInput: fewer than 2 steps, no runs, or a stochastic reference.
    """
    if len(start) < 2:
        raise InvalidInput("steps", len(start), "at least 2")
    if not runs:
        raise InvalidInput("runs", 0, "at least one")
    if reference.draws:
        raise InvalidInput("reference", reference.solver, "a deterministic plan")
    count, first = len(start), float(start.times[0])
    rows = _first_rows(count)
    wanted = []
    for number, run in enumerate(runs):
        wanted.append(_flat(run.under(reference).run()))
        progress(number + 1, len(runs), "reference")
    target = np.concatenate(wanted)
    # A step small enough to be a derivative, large enough not to drown in the rounding of the network.
    delta = 1e-5 if runs[0].dtype == torch.float64 else 1e-2

    def plan_of(values: Array) -> Plan:
        return _plan(process, first, values, count)

    def residual(values: Array) -> npt.NDArray[np.float64]:
        plan = plan_of(values)
        return np.concatenate([_flat(run.under(plan).run()) for run in runs]) - target

    def derivatives(values: Array, errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        passes = [_pass(run.under(plan_of(values))) for run in runs]
        columns = []
        for unit, row_number in zip(np.eye(len(values)), rows, strict=True):
            plan = plan_of(values + delta * unit)
            ends = [_flat(_go_on(made[row_number], plan)) for made in passes]
            columns.append((np.concatenate(ends) - target - errors) / delta)
        return np.stack(columns, axis=1)

    origin = np.concatenate([_spacing(start), _initial(start)])
    values, errors = origin.copy(), residual(origin)
    before, damping = float(np.sqrt(np.mean(errors**2))), 1e-2
    for iteration in range(iterations):
        jacobian = derivatives(values, errors)
        curvature, slope = jacobian.T @ jacobian, jacobian.T @ errors
        scale = np.diag(curvature).mean()
        slope = slope + ridge * scale * (values - origin)
        curvature = curvature + ridge * scale * np.eye(len(values))
        for _ in range(8):
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -slope)
            tried = residual(values + step)
            if np.isfinite(tried).all() and (tried @ tried) < (errors @ errors):
                values, errors, damping = values + step, tried, damping / 4
                break
            damping *= 4
        else:
            break
        progress(iteration + 1, iterations, f"rms {np.sqrt(np.mean(errors**2)):.3g}")
    return Fit(plan_of(values), before, float(np.sqrt(np.mean(errors**2))))


def fit_plan(plan: Plan, guidance: Guidance | Denoiser, reference: Plan, **options: Any) -> Plan:
    """`Plan.fit`: ``plan``'s times are the start; options are those of `fit` and of `Run`."""
    own = {name: options.pop(name) for name in ("iterations", "ridge", "progress") if name in options}
    run = Run(guidance, plan, **options)
    process = run.request().branches[0].denoiser.process_of("")
    return fit([run], process, explicit(process, [row.t for row in plan.rows]), reference, **own).plan


class _Row(NamedTuple):
    """A run before a row, and what the row's evaluation said."""

    run: Run
    evaluation: Evaluation
    outputs: list[Output]


@torch.inference_mode()
def _pass(run: Run) -> list[_Row]:
    """Every row of a run."""
    made = []
    while not run.done:
        evaluation = run.request()
        made.append(_Row(run.fork(), evaluation, evaluate(evaluation.branches, evaluation.x, evaluation.point)))
        run.apply(evaluation, made[-1].outputs)
    return made


@torch.inference_mode()
def _go_on(row: _Row, plan: Plan) -> Any:
    """The result under a plan that differs only in what this row writes, and later."""
    run = row.run.fork(plan)
    run.apply(row.evaluation, row.outputs)
    return run.run()


def _flat(result: Any) -> npt.NDArray[np.float64]:
    flat: npt.NDArray[np.float64] = result.double().flatten().cpu().numpy()
    return flat


def _first_rows(count: int) -> list[int]:
    """For every parameter, the first row that it changes; that row's evaluation stays what it was."""
    return [*range(count - 1), *(i for i in range(count) for _ in range(i + 2))]


def _spacing(grid: Grid) -> Array:
    """Logarithms of the log-SNR steps between the times; the first of a pure-noise start is taken from below."""
    lam = grid.half_log_snr[:-1]
    if not np.isfinite(lam[0]):
        lam = lam.copy()
        lam[0] = _floor(lam[1])
    out: Array = np.log(np.diff(lam))
    return out


def _floor(lam: float) -> float:
    """A finite stand-in for the log-SNR of pure noise, well below the next one."""
    return min(lam - 1.0, -6.0)


def _initial(grid: Grid) -> Array:
    """What is kept and the weights of every row, flat: third-order exponential Adams-Bashforth, as far as it goes."""
    lam = grid.half_log_snr
    values: list[float] = []
    for i in range(len(grid)):
        weights = np.zeros(i + 1)
        order = min(3, i + 1)
        if i + 1 == len(grid) or not np.isfinite(lam[max(0, i - order + 1)]):
            weights[0] = 1.0
        else:
            nodes, h = lam[i - np.arange(order)] - lam[i], lam[i + 1] - lam[i]
            u, w = np.polynomial.legendre.leggauss(12)
            at = (u + 1) / 2 * h
            kernel = np.exp(at - h) * h / 2 * w / -np.expm1(-h)
            for j in range(order):
                basis = [(at - nodes[k]) / (nodes[j] - nodes[k]) for k in range(order) if k != j]
                weights[j] = np.sum(kernel * np.prod(basis, axis=0))
        values += [1.0, *weights]
    return np.array(values)


def _plan(process: Process, first: float, values: Array, count: int) -> Plan:
    """The plan that parameters stand for: count - 1 spacings, then what each row keeps and its weights."""
    lam_first = float(process.log_snr(first)) / 2
    anchor = lam_first if np.isfinite(lam_first) else None
    steps = np.exp(np.clip(values[: count - 1], -20, 5))
    if anchor is None:
        # From pure noise: the second time is set by the first spacing above the floor, the others follow.
        lam = _floor(np.inf) + np.cumsum(steps)
        times = np.concatenate([[first], process.time(2 * lam)])
    else:
        lam = anchor + np.concatenate([[0.0], np.cumsum(steps)])
        times = process.time(2 * lam)
        times[0] = first
    grid = explicit(process, times)
    weights, rows = values[count - 1 :], []
    log = grid.half_log_snr
    for i, t in enumerate(times):
        own, weights = weights[: i + 2], weights[i + 2 :]
        gain = float(grid.alpha[i + 1]) * (-np.expm1(-(log[i + 1] - log[i])) if np.isfinite(log[i]) else 1.0)
        kept = float(own[0] * grid.sigma[i + 1] / grid.sigma[i])
        share = -kept * float(grid.alpha[i])
        terms: dict[Source, float] = {"x": kept, "estimate": gain * own[1] - share, "direction": share}
        terms |= {1 + i - j: gain * own[1 + j] for j in range(1, i + 1)}
        history: dict[int, dict[Source, float]] = {1 + i: {"estimate": 1.0}} if i + 1 < count else {}
        rows.append(row(t, grid.alpha[i], grid.sigma[i], {0: terms, **history}))
    return Plan("calibrated", tuple(rows), registers=count, start=float(grid.sigma[0]))
