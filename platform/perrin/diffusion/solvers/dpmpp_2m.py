r"""DPM-Solver++(2M): exponential integrator on the clean estimate, second order by the previous row's estimate.

.. math::
    x_s = \frac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - e^{-h}) \left[\left(1 + \tfrac{1}{2r}\right) D_t
    - \tfrac{1}{2r} D_{prev}\right], \qquad
    h = \lambda_s - \lambda_t,\; r = h_{prev} / h,\; \lambda = \log(\alpha/\sigma)

The first row has no history and the last, to the clean end, has infinite h: both are of first order.

References:
    Lu et al., DPM-Solver++ (2022), algorithm 2.
"""

from __future__ import annotations

import math

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan, Source, row
from perrin.diffusion.solvers.base import Solver

__all__ = ["dpmpp_2m"]


def _compile(grid: Grid) -> Plan:
    lam = grid.half_log_snr
    rows = []
    for i, t in enumerate(grid.times):
        alpha_s, sigma_t, sigma_s = float(grid.alpha[i + 1]), float(grid.sigma[i]), float(grid.sigma[i + 1])
        h = float(lam[i + 1] - lam[i])
        gain = alpha_s * -math.expm1(-h) if math.isfinite(lam[i]) else alpha_s
        kept = sigma_s / sigma_t
        # The direction's share is what one DDIM step would give it; the correction acts on the estimate.
        share = -kept * float(grid.alpha[i])
        weights: dict[Source, float] = {"x": kept, "estimate": gain - share, "direction": share}
        if i > 0 and math.isfinite(h) and math.isfinite(lam[i - 1]):
            extra = gain * h / (2 * float(lam[i] - lam[i - 1]))
            weights = {**weights, "estimate": gain - share + extra, 1: -extra}
        rows.append(row(t, grid.alpha[i], sigma_t, {0: weights, 1: {"estimate": 1.0}}))
    return Plan("dpmpp_2m", tuple(rows), registers=2, start=float(grid.sigma[0]))


dpmpp_2m = Solver("dpmpp_2m", "DPM-Solver++(2M)", 2, False, 1, _compile, "Lu et al. 2022, algorithm 2")
