r"""DPM2: the midpoint method in log-SNR, and with ancestral noise.

.. math::
    s_m = \sqrt{s_a\, s_{down}}, \qquad
    x_m = x_a + (s_m - s_a)\, \epsilon(x_a; s_a), \qquad
    x_b = x_a + (s_{down} - s_a)\, \epsilon(x_m; s_m) + s_{up}\, n

(for alpha = 1), with s_down and s_up as in `perrin.diffusion.solvers.euler`. Two evaluations a step, but one to the
clean end.

References:
    Katherine Crowson, k-diffusion (2022), ``sample_dpm_2`` and ``sample_dpm_2_ancestral``, after Lu et al., DPM-Solver
    (2022), algorithm 1, and Karras et al. (2022), algorithm 2.
"""

from __future__ import annotations

import math
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, row
from perrin.diffusion.solvers._steps import Step, level, points, reading, renoised
from perrin.diffusion.solvers._weights import mix
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.ddim import one_step_weights
from perrin.errors import InvalidInput

__all__ = ["dpm2", "dpm2_ancestral"]


def _compile(grid: Grid, name: str, eta: float = 0.0) -> Plan:
    if not 0 <= eta <= 1:
        raise InvalidInput("eta", eta, "a number of at least 0 and at most 1")
    along, rows = points(grid), list[Row]()
    for i, (a, b) in enumerate(pairwise(along)):
        up = eta * b.ratio * math.sqrt(1 - (b.ratio / a.ratio) ** 2)
        down = math.sqrt(max(0.0, b.ratio**2 - up**2))
        if a.alpha <= 0 or down == 0:
            only = one_step_weights(a.alpha, a.sigma, b.alpha, b.sigma, eta, i + 1)
            rows.append(row(a.t, a.alpha, a.sigma, {0: only}))
            continue
        m = level(grid.process, (a.lam - math.log(down)) / 2)
        half = Step("ratio", a, m)
        kept, whole, share = b.alpha / a.alpha, b.alpha * (down - a.ratio), b.alpha * down / a.sigma
        middle = renoised(mix((half.kept, {"x": 1.0}), (half.gains(1)[0], reading("ratio", a))), half.share, a)
        rows.append(row(a.t, a.alpha, a.sigma, {0: middle, 1: renoised({"x": 1.0}, share / kept, a)}))
        end = mix((kept, {1: 1.0}), (whole, reading("ratio", m)), (b.alpha * up, {Draw(i + 1): 1.0}))
        rows.append(row(m.t, m.alpha, m.sigma, {0: end}))
    return Plan(name, tuple(rows), registers=2, start=along[0].sigma)


def _dpm2(grid: Grid) -> Plan:
    return _compile(grid, "dpm2")


def _ancestral(grid: Grid, eta: float = 1.0) -> Plan:
    return _compile(grid, "dpm2_ancestral", eta)


dpm2 = Solver("dpm2", "DPM2", 2, False, 1, _dpm2, "k-diffusion 2022", one_each=False)
dpm2_ancestral = Solver(
    "dpm2_ancestral", "DPM2 ancestral", None, True, 1, _ancestral, "k-diffusion 2022", one_each=False
)
