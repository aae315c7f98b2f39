r"""DPM-Solver++(SDE): two ancestral stages on the clean estimate along one Brownian path.

.. math::
    x_m &= \tfrac{s_{down}(m)}{s_a} x_a + \left(1 - \tfrac{s_{down}(m)}{s_a}\right) D_a + s_{up}(m)\, n_{a,m}, \\
    x_b &= \tfrac{s_{down}(b)}{s_a} x_a + \left(1 - \tfrac{s_{down}(b)}{s_a}\right)
        \left[\left(1 - \tfrac{1}{2r}\right) D_a + \tfrac{1}{2r} D_m\right] + s_{up}(b)\, n_{a,b}

(for alpha = 1), m at r of the way in log-SNR, and s_down, s_up as in `perrin.diffusion.solvers.euler`. The noises are
increments, each over the root of its length, of one Brownian path whose time is s: n_{a,b} holds n_{a,m} and a draw of
its own.

References:
    Lu et al., DPM-Solver++ (2022), section 5 and algorithm 1; Katherine Crowson, k-diffusion (2022),
    ``sample_dpmpp_sde``.
"""

from __future__ import annotations

import math
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.solvers._steps import Point, between, points, renoised
from perrin.diffusion.solvers._weights import mix
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.ddim import one_step_weights
from perrin.errors import InvalidInput

__all__ = ["dpmpp_sde"]


def _ancestral(a: Point, b: Point, eta: float) -> tuple[float, float, float]:
    """Weights of x_a, of the estimate and of the noise."""
    up = eta * b.ratio * math.sqrt(1 - (b.ratio / a.ratio) ** 2)
    rest = math.sqrt(max(0.0, b.ratio**2 - up**2)) / a.ratio
    return rest * b.alpha / a.alpha, b.alpha * (1 - rest), b.alpha * up


def _compile(grid: Grid, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Plan:
    if not 0 <= eta <= 1:
        raise InvalidInput("eta", eta, "a number of at least 0 and at most 1")
    if not 0 < r < 1:
        raise InvalidInput("r", r, "a number above 0 and below 1")
    along, rows = points(grid), list[Row]()
    for i, (a, b) in enumerate(pairwise(along)):
        early: Source = Draw(2 * i + 1)
        if a.alpha <= 0 or b.sigma == 0:
            weights = one_step_weights(a.alpha, a.sigma, b.alpha, b.sigma, eta, 2 * i + 1)
            rows.append(row(a.t, a.alpha, a.sigma, {0: weights}))
            continue
        m = between(grid.process, a, b, r)
        kept, gain, noise = _ancestral(a, m, eta)
        middle = renoised({"x": kept, "estimate": gain, early: s_noise * noise}, kept, a)
        # The estimate's own register, and the beginning with what it keeps turned to the direction.
        rows.append(row(a.t, a.alpha, a.sigma, {0: middle, 1: renoised({"x": 1.0}, 1.0, a), 2: {"estimate": 1.0}}))
        kept, gain, noise = _ancestral(a, b, eta)
        part, whole = a.ratio - m.ratio, a.ratio - b.ratio
        path: dict[Source, float] = {early: math.sqrt(part / whole), Draw(2 * i + 2): math.sqrt(1 - part / whole)}
        late = 1 / (2 * r)
        slopes: dict[Source, float] = {2: 1 - late, "estimate": late}
        end = mix((kept, {1: 1.0}), (gain, slopes), (s_noise * noise, path))
        rows.append(row(m.t, m.alpha, m.sigma, {0: end}))
    return Plan("dpmpp_sde", tuple(rows), registers=3, start=along[0].sigma)


dpmpp_sde = Solver(
    "dpmpp_sde", "DPM-Solver++ SDE", None, True, 1, _compile, "Lu et al. 2022, section 5 (k-diffusion)", one_each=False
)
