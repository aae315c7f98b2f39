r"""Euler's method on the rectified-flow ordinary differential equation.

.. math:: x_s = x_t + (s - t)\, u, \qquad u = \frac{x_t - D}{t}

References:
    Liu et al., Flow Straight and Fast (2022), eq. 2.
"""

from __future__ import annotations

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan, Source, row
from perrin.diffusion.process import Flow
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["flow_euler"]


def _compile(grid: Grid) -> Plan:
    if not isinstance(grid.process, Flow):
        raise InvalidInput("sampler", "flow_euler", "a rectified-flow model; ddim is Euler's method elsewhere")
    rows = []
    for i, t in enumerate(grid.times):
        kept = grid.sigma[i + 1] / t
        # u splits as (x - E) / t re-noised along E, which for E = D is the line above.
        move: dict[Source, float] = {"x": kept, "estimate": grid.alpha[i + 1], "direction": -kept * grid.alpha[i]}
        rows.append(row(t, grid.alpha[i], grid.sigma[i], {0: move}))
    return Plan("flow_euler", tuple(rows), registers=1, start=float(grid.sigma[0]))


flow_euler = Solver("flow_euler", "Euler (flow)", 1, False, 1, _compile, "Liu et al. 2022, eq. 2")
