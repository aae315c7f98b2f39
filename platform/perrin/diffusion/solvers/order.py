r"""The order of a solver, from its coefficients alone.

A plan is applied, number by number, to an equation whose solution is known: with y = x / alpha and any m(lambda),

.. math:: D(y, \lambda) = m + m' + \kappa\, (y - m) + \tfrac12 \kappa\, (y - m)^2 \quad\Rightarrow\quad y = m

as the flow is dy/dlambda = D - y. The estimate feeds back, and bends, so stages meet all their order conditions; m is
flat at the start, so that multistep methods start from rest and their first, lower-order rows cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from perrin.diffusion.grid import explicit
from perrin.diffusion.plan import Draw, Plan, Row, Terms, Weight
from perrin.diffusion.process import flow
from perrin.diffusion.solvers.base import Solver

__all__ = ["interpret", "measured_order"]

_SPAN, _KAPPA = 2.0, 0.6


def interpret(plan: Plan, estimate: Callable[[float, Row], float], start: float, rows: int) -> float:
    """Register 0 after the first ``rows`` rows of ``plan``, in one dimension and without noise.

    Args:
        plan: of any solver, with one weight per term.
        estimate: (network's input, row) -> clean estimate.
        start: what register 0 holds before the first row.
        rows: how many to compute.
    """
    registers = [start] + [0.0] * (plan.registers - 1)

    def total(terms: Terms, sources: Mapping[Any, float]) -> float:
        return sum(_plain(w) * sources[s] for s, w in terms if not isinstance(s, Draw))

    for row in plan.rows[:rows]:
        held: dict[Any, float] = dict(enumerate(registers))
        x = total(row.input, held)
        clean = estimate(x, row)
        held |= {"x": x, "estimate": clean, "direction": clean}
        for register, terms in row.writes:
            registers[register] = total(terms, held)
    return registers[0]


def _solution(lam: float) -> tuple[float, float]:
    """m and m' at lambda in [-1, 1]."""
    u = lam + _SPAN / 2
    return 1 + u**6 * np.exp(-u) / 4, (6 * u**5 - u**6) * np.exp(-u) / 4


def _plain(weight: Weight) -> float:
    return float(np.mean(weight))


def _estimate(x: float, row: Row) -> float:
    m, slope = _solution(np.log(_plain(row.alpha) / _plain(row.sigma)))
    away = x / _plain(row.alpha) - m
    return float(m + slope + _KAPPA * away * (1 + away / 2))


def measured_order(solver: Solver, steps: tuple[int, int] = (96, 192), **options: Any) -> float:
    """log2-slope of the error of ``solver`` between two step counts on the equation above, rectified-flow levels.

    The last row, to the clean end, is left out: it is of the first order by design.
    """
    process, errors = flow(), []
    for count in steps:
        lam = np.linspace(-_SPAN / 2, _SPAN / 2, count + 1)
        # Not even in lambda: a method that needs an even grid would be flattered.
        lam = lam + 0.05 * np.sin(2 * lam)
        lam = (lam - lam[0]) / (lam[-1] - lam[0]) * _SPAN - _SPAN / 2
        plan = solver(explicit(process, process.time(2 * lam)), **options)
        first, last = plan.rows[0], plan.rows[-1]
        end = interpret(plan, _estimate, _plain(first.alpha) * _solution(lam[0])[0], len(plan) - 1)
        errors.append(abs(end / _plain(last.alpha) - _solution(lam[-1])[0]))
    return float(np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0]))
