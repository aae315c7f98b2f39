r"""PNDM, PLMS and iPNDM: Adams-Bashforth on the noise estimate with the coefficients of an even grid.

.. math::
    \frac{x_b}{\alpha_b} &= \frac{x_a}{\alpha_a} + (s_b - s_a)\, \epsilon', \\
    \epsilon' &= \tfrac{1}{24} (55\, \epsilon_i - 59\, \epsilon_{i-1} + 37\, \epsilon_{i-2} - 9\, \epsilon_{i-3})

They differ in how they start. PNDM takes three Runge-Kutta steps of four evaluations, with midpoints in time (N + 9
evaluations); PLMS takes the first step again with the mean of the slopes at its ends (N + 1); iPNDM begins with lower
orders (N). As the grid is even in time and not in s, no order is claimed.

References:
    Liu et al., Pseudo Numerical Methods for Diffusion Models on Manifolds (2022), eq. 11-13, algorithm 2;
    Zhang and Chen, DEIS (2023), section 4, for iPNDM.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan, Row, Source, row
from perrin.diffusion.solvers._steps import Point, Step, points, reading, renoised
from perrin.diffusion.solvers._weights import mix
from perrin.diffusion.solvers.base import Solver

__all__ = ["ipndm", "plms", "pndm"]

_ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

_START, _SUM, _HISTORY = 1, 2, 3


def _slot(i: int) -> int:
    return _HISTORY + i % 3


def _transfer(a: Point, b: Point, slope: Mapping[Source, float], start: Source = "x") -> dict[Source, float]:
    """The step from a to b along ``slope``; from pure noise it is a first step, whose slope is that of its own row."""
    step = Step.of("ratio", a, b)
    gain = step.gains(1)[0]
    along = (gain, {"estimate": 1.0} if step.single else slope)
    terms = mix((step.kept, {start: 1.0}), along)
    return renoised(terms, step.share, a) if start == "x" else terms


def _start(a: Point, b: Point) -> dict[Source, float]:
    """x_a for the later rows of the step, what they keep of it turned to the direction in advance."""
    return renoised({"x": 1.0}, b.ratio / a.ratio, a)


def _adams(i: int, a: Point, b: Point) -> Row:
    """Grid step i with as many earlier slopes as there are."""
    weights = _ADAMS[min(i, 3)]
    history = [(w, {_slot(i - j): 1.0}) for j, w in enumerate(weights) if j]
    slope = mix((weights[0], reading("noise", a)), *history)
    return row(a.t, a.alpha, a.sigma, {0: _transfer(a, b, slope), _slot(i): reading("noise", a)})


def _again(i: int, a: Point, b: Point) -> list[Row]:
    """Grid step i by Euler, and once more from its start with the mean of both ends' slopes."""
    slope = reading("noise", a)
    first = {0: _transfer(a, b, slope), _START: _start(a, b), _slot(i): slope}
    mean = mix((0.5, {_slot(i): 1.0}), (0.5, reading("noise", b)))
    return [row(a.t, a.alpha, a.sigma, first), row(b.t, b.alpha, b.sigma, {0: _transfer(a, b, mean, _START)})]


def _runge_kutta(i: int, a: Point, m: Point, b: Point) -> list[Row]:
    """Grid step i by four evaluations."""
    slope, middle, end = (reading("noise", p) for p in (a, m, b))
    first = {0: _transfer(a, m, slope), _START: _start(a, b), _SUM: mix((1 / 6, slope)), _slot(i): slope}
    second = {0: _transfer(a, m, middle, _START), _SUM: mix((1.0, {_SUM: 1.0}), (1 / 3, middle))}
    third = {0: _transfer(a, b, middle, _START), _SUM: second[_SUM]}
    fourth = {0: _transfer(a, b, mix((1.0, {_SUM: 1.0}), (1 / 6, end)), _START)}
    at = [(a, first), (m, second), (m, third), (b, fourth)]
    return [row(p.t, p.alpha, p.sigma, writes) for p, writes in at]


def _compile(grid: Grid, name: str) -> Plan:
    along, rows = points(grid), list[Row]()
    # A start of pure noise allows nothing but a first step.
    late = 1 if along[0].alpha <= 0 else 0
    for i, (a, b) in enumerate(pairwise(along)):
        if name == "plms" and i == late and b.sigma > 0:
            rows += _again(i, a, b)
        elif name == "pndm" and late <= i < late + 3:
            t = (a.t + b.t) / 2
            m = Point(t, float(grid.process.alpha(t)), float(grid.process.sigma(t)))
            rows += _runge_kutta(i, a, m, b)
        else:
            rows.append(_adams(i, a, b))
    return Plan(name, tuple(rows), registers=6, start=along[0].sigma)


def _plms(grid: Grid) -> Plan:
    return _compile(grid, "plms")


def _pndm(grid: Grid) -> Plan:
    return _compile(grid, "pndm")


def _ipndm(grid: Grid) -> Plan:
    return _compile(grid, "ipndm")


pndm = Solver("pndm", "PNDM", None, False, 5, _pndm, "Liu et al. 2022, algorithm 2", one_each=False)
plms = Solver("plms", "PLMS", None, False, 1, _plms, "Liu et al. 2022, eq. 12", one_each=False)
ipndm = Solver("ipndm", "iPNDM", None, False, 1, _ipndm, "Zhang and Chen 2023, section 4")
