r"""Few-step sampling of distilled models: consistency multistep, LCM, TCD.

.. math::
    x_b &= \alpha_b D + \sqrt{\sigma_b^2 - \alpha_b^2 s_{min}^2}\; n &\quad\text{(consistency)} \\
    x_b &= \alpha_b \left(c_{out} D + c_{skip}\, x_a\right) + \sigma_b\, n &\quad\text{(LCM)} \\
    x_b &= \tfrac{\alpha_b}{\alpha_c} \left(\alpha_c D + \sigma_c\, \epsilon\right)
        + \sqrt{\sigma_b^2 - \tfrac{\alpha_b^2}{\alpha_c^2} \sigma_c^2}\; n,
        \qquad t_c = (1 - \gamma)\, t_b &\quad\text{(TCD)}

All jump to an estimate of the clean sample and put noise back. A consistency model's network holds its boundary
condition already; a latent one gets it here, c_skip = q / (1 + q), c_out = 1 / sqrt(1 + q) with q = (0.05 / t)^2, t in
training steps.

References:
    Song et al., Consistency Models (2023), algorithm 1; Luo et al., Latent Consistency Models (2023), algorithm 3 and
    section 4.2; Zheng et al., Trajectory Consistency Distillation (2024), algorithm 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.process import FromBetas
from perrin.diffusion.solvers._steps import Point, points, reading, renoised
from perrin.diffusion.solvers._weights import mix
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["consistency", "lcm", "tcd"]

_Terms = dict[Source, float]


def _rows(name: str, grid: Grid, step: Callable[[Point, Point], tuple[_Terms, float]]) -> Plan:
    """The plan whose rows are a step's mean and the weight of a draw."""
    along, rows = points(grid), list[Row]()
    for i, (a, b) in enumerate(pairwise(along)):
        mean, noise = step(a, b)
        rows.append(row(a.t, a.alpha, a.sigma, {0: mix((1.0, mean), (noise, {Draw(i + 1): 1.0}))}))
    return Plan(name, tuple(rows), registers=1, start=along[0].sigma)


def _consistency(grid: Grid) -> Plan:
    floor = math.exp(-float(grid.process.log_snr(grid.process.t_min)) / 2)

    def step(a: Point, b: Point) -> tuple[_Terms, float]:
        return {"estimate": b.alpha}, math.sqrt(max(0.0, b.sigma**2 - (b.alpha * floor) ** 2))

    return _rows("consistency", grid, step)


def _lcm(grid: Grid) -> Plan:
    def step(a: Point, b: Point) -> tuple[_Terms, float]:
        # The boundary condition counts training steps, so it is for processes which have them.
        q = (0.05 / a.t) ** 2 if isinstance(grid.process, FromBetas) and a.t > 0 else 0.0
        return {"estimate": b.alpha / math.sqrt(1 + q), "x": b.alpha * q / (1 + q)}, b.sigma

    return _rows("lcm", grid, step)


def _tcd(grid: Grid, gamma: float = 0.3) -> Plan:
    if not 0 <= gamma <= 1:
        raise InvalidInput("gamma", gamma, "a number of at least 0 and at most 1")

    def step(a: Point, b: Point) -> tuple[_Terms, float]:
        if b.sigma == 0:
            return {"estimate": b.alpha}, 0.0
        t = max((1 - gamma) * b.t, grid.process.t_min)
        alpha, sigma = float(grid.process.alpha(t)), float(grid.process.sigma(t))
        kept = b.alpha * sigma / alpha
        mean = mix((b.alpha, {"estimate": 1.0}), (kept, reading("noise", a)))
        return renoised(mean, 0.0, a), math.sqrt(max(0.0, b.sigma**2 - kept**2))

    return _rows("tcd", grid, step)


consistency = Solver("consistency", "Consistency", None, True, 1, _consistency, "Song et al. 2023, algorithm 1")
lcm = Solver("lcm", "LCM", None, True, 1, _lcm, "Luo et al. 2023, algorithm 3")
tcd = Solver("tcd", "TCD", None, True, 1, _tcd, "Zheng et al. 2024, algorithm 4")
