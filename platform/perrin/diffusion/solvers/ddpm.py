r"""DDPM: ancestral sampling from the posterior of the forward process.

.. math:: q(x_s \mid x_t, x_0 = D) = \mathcal N\!\left(\frac{\alpha_{t|s}\sigma_s^2}{\sigma_t^2} x_t
    + \frac{\alpha_s \sigma_{t|s}^2}{\sigma_t^2} D,\; \frac{\sigma_{t|s}^2 \sigma_s^2}{\sigma_t^2}\right),
    \qquad \alpha_{t|s} = \frac{\alpha_t}{\alpha_s},\; \sigma_{t|s}^2 = \sigma_t^2 - \alpha_{t|s}^2 \sigma_s^2

That is the small variance; the large one is sigma_{t|s}^2; a network may learn where between their logarithms to be.

References:
    Ho et al., Denoising Diffusion Probabilistic Models (2020), eq. 6-7 and section 3.2;
    Nichol and Dhariwal, Improved DDPM (2021), eq. 15; Kingma et al. (2021), eq. 25-28, for any alpha and sigma.
"""

from __future__ import annotations

import math
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.solvers._steps import points, renoised
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["ddpm"]


def _compile(grid: Grid, variance: str = "small") -> Plan:
    if variance not in ("small", "large", "learned"):
        raise InvalidInput("variance", variance, "small, large or learned")
    along, rows = points(grid), list[Row]()
    for i, (a, b) in enumerate(pairwise(along)):
        transfer = a.alpha / b.alpha
        large = a.sigma**2 - transfer**2 * b.sigma**2
        small = large * b.sigma**2 / a.sigma**2
        kept = transfer * b.sigma**2 / a.sigma**2
        # To the clean end goes the mean alone, whatever the variance.
        scale = {"small": math.sqrt(small), "large": math.sqrt(large), "learned": 1.0}[variance]
        noise = scale if b.sigma > 0 else 0.0
        weights: dict[Source, float] = {"x": kept, "estimate": b.alpha * large / a.sigma**2, Draw(i + 1): noise}
        learned = (math.log(small), math.log(large)) if variance == "learned" and b.sigma > 0 else None
        rows.append(row(a.t, a.alpha, a.sigma, {0: renoised(weights, kept, a)}, learned=learned))
    return Plan("ddpm", tuple(rows), registers=1, start=along[0].sigma)


ddpm = Solver("ddpm", "DDPM", None, True, 1, _compile, "Ho et al. 2020, eq. 7")
