r"""DDPM: ancestral sampling from the posterior of the forward process.

.. math:: q(x_s \mid x_t, x_0 = D) = \mathcal N\!\left(\frac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2} x_t
    + \frac{\alpha_s \sigma_{t|s}^2}{\sigma_t^2} D,\; \frac{\sigma_{t|s}^2 \sigma_s^2}{\sigma_t^2}\right),
    \qquad \alpha_{t|s} = \frac{\alpha_t}{\alpha_s},\; \sigma_{t|s}^2 = \sigma_t^2 - \alpha_{t|s}^2 \sigma_s^2

References:
    Ho et al., Denoising Diffusion Probabilistic Models (2020), eq. 6-7 (the small variance, beta-tilde);
    Kingma et al. (2021), eq. 25-28, for any alpha and sigma.
"""

from __future__ import annotations

import math

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Source, row
from perrin.diffusion.solvers.base import Solver

__all__ = ["ddpm"]


def _compile(grid: Grid) -> Plan:
    rows = []
    for i, t in enumerate(grid.times):
        alpha_t, sigma_t, alpha_s, sigma_s = grid.alpha[i], grid.sigma[i], grid.alpha[i + 1], grid.sigma[i + 1]
        transfer = alpha_t / alpha_s
        variance = sigma_t**2 - transfer**2 * sigma_s**2
        weights: dict[Source, float] = {
            "x": transfer * sigma_s**2 / sigma_t**2,
            "estimate": alpha_s * variance / sigma_t**2,
            Draw(i + 1): math.sqrt(variance) * sigma_s / sigma_t,
        }
        rows.append(row(t, alpha_t, sigma_t, {0: weights}))
    return Plan("ddpm", tuple(rows), registers=1, start=float(grid.sigma[0]))


ddpm = Solver("ddpm", "DDPM", None, True, 1, _compile, "Ho et al. 2020, eq. 7")
