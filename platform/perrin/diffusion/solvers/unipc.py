r"""UniPC: a predictor of order p in clean space and a corrector of order p + 1 that reuses the next evaluation.

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} x_a + \alpha_b (1 - e^{-h}) D_a
        + \alpha_b B(h) \sum_m \tfrac{a_m}{r_m} (D_m - D_a), \qquad B_1 = h,\; B_2 = 1 - e^{-h}

The corrector has the value at b among its nodes. Where the a_m are solved for, B cancels, and both are the integrals of
polynomials; it is felt where a single slope is weighed by 1/2: in UniP-2 and in the first correction.

References:
    Zhao et al., UniPC: A Unified Predictor-Corrector Framework (2023), eq. 3, 8 and 12, algorithms 1 and 2.
"""

from __future__ import annotations

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._predictor_corrector import predictor_corrector
from perrin.diffusion.solvers._steps import Second
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = ["unipc_2", "unipc_3"]


def _checked(variant: Second) -> Second:
    if variant not in ("bh1", "bh2"):
        raise InvalidInput("variant", variant, "bh1 or bh2")
    return variant


def _second(grid: Grid, variant: Second = "bh2") -> Plan:
    return predictor_corrector("unipc_2", grid, 2, 3, _checked(variant))


def _third(grid: Grid, variant: Second = "bh2") -> Plan:
    return predictor_corrector("unipc_3", grid, 3, 4, _checked(variant))


unipc_2 = Solver("unipc_2", "UniPC-2", 3, False, 1, _second, "Zhao et al. 2023, algorithm 1")
unipc_3 = Solver("unipc_3", "UniPC-3", 3, False, 1, _third, "Zhao et al. 2023, algorithm 1")
