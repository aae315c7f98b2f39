r"""Heun's method on the probability flow in the noise-to-signal ratio s, with or without noise put in between.

.. math::
    \hat x &= x + \sqrt{\hat s^2 - s^2}\; n, \qquad
    x' = \hat x + (s_b - \hat s)\, \epsilon(\hat x; \hat s), \\
    x_b &= \hat x + \tfrac{1}{2} (s_b - \hat s) \left[\epsilon(\hat x; \hat s) + \epsilon(x'; s_b)\right]

(for alpha = 1), or on rectified flow in its time and with its velocity in place of s and epsilon. N steps take 2 N - 1
evaluations, as the one to the clean end is Euler's. Churn raises each s that lies between S_tmin and S_tmax to
(1 + gamma) s with gamma = min(S_churn / N, sqrt 2 - 1).

References:
    Karras et al. (2022), algorithms 1 and 2; Liu et al., Flow Straight and Fast (2022), eq. 1, for the flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.process import Flow
from perrin.diffusion.solvers._steps import Point, Space, Step, level, points, reading, renoised
from perrin.diffusion.solvers._weights import mix
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["Leg", "edm_churn", "flow_heun", "heun", "heun_rows"]


class Leg(NamedTuple):
    """From ``before``, made noisier to ``a`` where they differ, down to ``b``."""

    before: Point
    a: Point
    b: Point


def heun_rows(legs: Sequence[Leg], s_noise: float = 1.0, space: Space = "ratio") -> tuple[Row, ...]:
    """The rows of Heun's method along ``legs``, with registers for x, the step's beginning and its first slope."""
    rows: list[Row] = []
    for i, (before, a, b) in enumerate(legs):
        step = Step.of(space, a, b)
        slope = reading(step.space, a)
        whole = step.gains(1)[0]
        raised: dict[Source, float] | None = None
        if a != before:
            noise = a.alpha * math.sqrt(a.ratio**2 - before.ratio**2)
            raised = {0: a.alpha / before.alpha, Draw(i + 1): s_noise * noise}
        euler = renoised(mix((step.kept, {"x": 1.0}), (whole, slope)), step.share, a)
        if step.single or b.sigma == 0:
            rows.append(row(a.t, a.alpha, a.sigma, {0: euler}, input=raised))
            continue
        start = renoised({"x": 1.0}, step.share / step.kept, a)
        rows.append(row(a.t, a.alpha, a.sigma, {0: euler, 1: start, 2: slope}, input=raised))
        ends = mix((step.kept, {1: 1.0}), (whole / 2, {2: 1.0}), (whole / 2, reading(space, b)))
        rows.append(row(b.t, b.alpha, b.sigma, {0: ends}))
    return tuple(rows)


def _heun(grid: Grid) -> Plan:
    along = points(grid)
    return Plan("heun", heun_rows([Leg(a, a, b) for a, b in pairwise(along)]), registers=3, start=along[0].sigma)


def _flow(grid: Grid) -> Plan:
    if not isinstance(grid.process, Flow):
        raise InvalidInput("sampler", "flow_heun", "a rectified-flow model; heun serves every other")
    along = points(grid)
    legs = [Leg(a, a, b) for a, b in pairwise(along)]
    return Plan("flow_heun", heun_rows(legs, space="flow"), registers=3, start=along[0].sigma)


def _churn(
    grid: Grid, s_churn: float = 40.0, s_tmin: float = 0.05, s_tmax: float = 50.0, s_noise: float = 1.003
) -> Plan:
    if not 0 <= s_churn < math.inf:
        raise InvalidInput("s_churn", s_churn, "a number of at least 0")
    along, legs = points(grid), list[Leg]()
    gamma = min(s_churn / len(grid), math.sqrt(2) - 1)
    for a, b in pairwise(along):
        churned = gamma > 0 and s_tmin <= a.ratio <= s_tmax and a.alpha > 0
        legs.append(Leg(a, level(grid.process, a.lam - math.log1p(gamma)) if churned else a, b))
    return Plan("edm_churn", heun_rows(legs, s_noise), registers=3, start=along[0].sigma)


flow_heun = Solver("flow_heun", "Heun (flow)", 2, False, 1, _flow, "Liu et al. 2022, eq. 1", one_each=False)
heun = Solver("heun", "Heun", 2, False, 1, _heun, "Karras et al. 2022, algorithm 1", one_each=False)
edm_churn = Solver(
    "edm_churn", "EDM (Heun with churn)", None, True, 1, _churn, "Karras et al. 2022, algorithm 2", one_each=False
)
