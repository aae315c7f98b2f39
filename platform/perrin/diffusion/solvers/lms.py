r"""Linear multistep in the noise-to-signal ratio: Adams-Bashforth on a grid of any spacing.

.. math::
    \frac{x_b}{\alpha_b} = \frac{x_a}{\alpha_a} + \sum_{j<k} \epsilon_j \int_{s_a}^{s_b} \ell_j(s)\, ds,
    \qquad s = \sigma/\alpha

The last step goes to s = 0 as any other: extrapolated, not the estimate itself.

References:
    Katherine Crowson, k-diffusion (2022), ``sample_lms``; Hairer, Norsett and Wanner (1993), section III.5, on the
    equation of Karras et al. (2022), eq. 4.
"""

from __future__ import annotations

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["lms"]


def _compile(grid: Grid, order: int = 4) -> Plan:
    if order not in (1, 2, 3, 4):
        raise InvalidInput("order", order, "1 to 4")
    return multistep("lms", grid, order, "ratio")


lms = Solver("lms", "LMS", 4, False, 1, _compile, "Hairer et al. 1993, eq. III.5.4")
