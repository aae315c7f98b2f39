r"""Restart: Heun's method that goes back up, with fresh noise, and comes down again.

.. math:: x_{s_{max}} = x_{s_{min}} + \sqrt{s_{max}^2 - s_{min}^2}\; n

When the grid reaches s_min, that and a descent on a Karras grid of a few steps are done ``repeats`` times. Each fresh
start forgets errors of the past, as a diffusion does; each descent has the small error of the flow.

References:
    Xu et al., Restart Sampling for Improving Generative Processes (2023), algorithm 1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._steps import level, points
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.heun import Leg, heun_rows
from perrin.errors import InvalidInput

__all__ = ["restart"]


def _compile(
    grid: Grid, s_min: float = 0.06, s_max: float = 0.3, repeats: int = 3, inner: int = 4, rho: float = 7.0
) -> Plan:
    if not 0 < s_min < s_max < math.inf:
        raise InvalidInput("s_min", s_min, f"above 0 and below s_max, {s_max}")
    if not (0 <= repeats <= 100 and 1 <= inner <= 1000):
        raise InvalidInput("repeats, inner", (repeats, inner), "repeats of 0 to 100, inner of 1 to 1000")
    along, legs = points(grid), list[Leg]()
    # The grid point nearest to s_min from above: restarting must go up from where the run is.
    bottom = [p for p in along if s_min <= p.ratio < s_max][-1:]
    for a, b in pairwise(along):
        legs.append(Leg(a, a, b))
        if b in bottom:
            ratios = np.linspace(s_max ** (1 / rho), b.ratio ** (1 / rho), inner + 1) ** rho
            down = [level(grid.process, -math.log(ratio)) for ratio in ratios[:-1]] + [b]
            climb = [Leg(b if k == 0 else p, p, q) for k, (p, q) in enumerate(pairwise(down))]
            legs += climb * repeats
    return Plan("restart", heun_rows(legs), registers=3, start=along[0].sigma)


restart = Solver("restart", "Restart", None, True, 1, _compile, "Xu et al. 2023, algorithm 1", one_each=False)
