r"""ER-SDE: the extended reverse diffusion, whose noise scale is any increasing function phi of s = sigma / alpha.

.. math::
    \frac{x_b}{\alpha_b} = r\, \frac{x_a}{\alpha_a} + \phi_b \int_{s_b}^{s_a} \frac{\phi'}{\phi^2}\, P(s)\, ds
        + \sqrt{s_b^2 - s_a^2 r^2}\; n, \qquad r = \frac{\phi(s_b)}{\phi(s_a)}, \quad \phi(s) = s\,(e^{s^{0.3}} + 10)

with P the polynomial in s through the latest clean estimates. By parts, the integral of a power of
u = (s - s_a) / (s_b - s_a) is that of a smooth function, which Gauss-Legendre quadrature in log s gives to all digits.

References:
    Cui et al., Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models (2023), eq. 17-19,
    algorithms 1-3, with the phi of ER-SDE 5.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.process import Array
from perrin.diffusion.solvers._steps import Point, points, renoised
from perrin.diffusion.solvers._weights import collocation, mix
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["er_sde"]


def _log_phi(s: Array) -> Array:
    """log phi; phi itself overflows where s does not."""
    return np.log(s) + np.logaddexp(s**0.3, math.log(10))


def _gains(a: Point, b: Point, count: int) -> list[float]:
    """Weights of 1, u, .. u^(count-1) over alpha_b."""
    x, w = np.polynomial.legendre.leggauss(48)
    low, high = math.log(b.ratio), math.log(a.ratio)
    s = np.exp(low + (high - low) * (x + 1) / 2)
    end = _log_phi(np.array([b.ratio, a.ratio]))
    made = [-math.expm1(float(end[0] - end[1]))]
    inner = w * (high - low) / 2 * s / (a.ratio - b.ratio) * np.exp(end[0] - _log_phi(s))
    u = (s - a.ratio) / (b.ratio - a.ratio)
    return made + [1 - k * float(np.sum(inner * u ** (k - 1))) for k in range(1, count)]


def _compile(grid: Grid, order: int = 3, s_noise: float = 1.0) -> Plan:
    if order not in (1, 2, 3):
        raise InvalidInput("order", order, "1, 2 or 3")
    along, rows, depth = points(grid), list[Row](), 2
    for i, (a, b) in enumerate(pairwise(along)):
        ends = a.alpha <= 0 or b.sigma == 0
        r = 0.0 if ends else math.exp(float(np.diff(_log_phi(np.array([a.ratio, b.ratio])))[0]))
        held = [j for j in range(1 if ends else min(order, i + 1)) if j == 0 or along[i - j].alpha > 0]
        gains = [1.0] if ends else _gains(a, b, len(held))
        nodes = [0.0] if ends else [(along[i - j].ratio - a.ratio) / (b.ratio - a.ratio) for j in held]
        weights = collocation(nodes, gains)
        kept = 0.0 if ends else r * b.alpha / a.alpha
        noise = b.sigma if ends else b.alpha * math.sqrt(b.ratio**2 - (a.ratio * r) ** 2)
        terms = mix(
            (kept, {"x": 1.0}),
            (b.alpha * weights[0], {"estimate": 1.0}),
            *((b.alpha * w, {1 + (i - j) % depth: 1.0}) for j, w in zip(held[1:], weights[1:], strict=True)),
            (noise * s_noise, {Draw(i + 1): 1.0}),
        )
        writes: dict[int, dict[Source, float]] = {0: renoised(terms, kept, a), 1 + i % depth: {"estimate": 1.0}}
        rows.append(row(a.t, a.alpha, a.sigma, writes))
    return Plan("er_sde", tuple(rows), registers=1 + depth, start=along[0].sigma)


er_sde = Solver("er_sde", "ER-SDE", None, True, 1, _compile, "Cui et al. 2023, algorithm 3")
