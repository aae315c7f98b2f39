r"""DDIM: denoise to a clean estimate, then re-noise to the next level along the same direction.

.. math::
    x_s = \alpha_s D + \sqrt{\sigma_s^2 - \varsigma^2}\;\frac{x_t - \alpha_t E}{\sigma_t} + \varsigma\, n,
    \qquad \varsigma = \eta\, \sigma_s \sqrt{1 - \left(\frac{\alpha_t\, \sigma_s}{\alpha_s\, \sigma_t}\right)^2}

eta = 0 is deterministic, of order 1; eta = 1 has the posterior variance of DDPM.

References:
    Song et al., Denoising Diffusion Implicit Models (2021), eq. 12 and 16, written for any alpha and sigma.
"""

from __future__ import annotations

import math

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Source, row
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["ddim", "one_step_weights"]


def one_step_weights(
    alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float, eta: float, draw: int
) -> dict[Source, float]:
    """Weights of the step above from (alpha_t, sigma_t) to (alpha_s, sigma_s)."""
    noise = eta * sigma_s * math.sqrt(max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2))
    kept = math.sqrt(max(0.0, sigma_s**2 - noise**2)) / sigma_t
    return {"x": kept, "estimate": alpha_s, "direction": -kept * alpha_t, Draw(draw): noise}


def _compile(grid: Grid, eta: float = 0.0) -> Plan:
    if not 0 <= eta <= 1:
        raise InvalidInput("eta", eta, "a number of at least 0 and at most 1")
    a, s = grid.alpha, grid.sigma
    rows = [
        row(t, a[i], s[i], {0: one_step_weights(a[i], s[i], a[i + 1], s[i + 1], eta, draw=i + 1)})
        for i, t in enumerate(grid.times)
    ]
    return Plan("ddim", tuple(rows), registers=1, start=float(s[0]))


ddim = Solver("ddim", "DDIM", 1, False, 1, _compile, "Song et al. 2021, eq. 12")
