r"""DEIS: the polynomial in log(sigma / alpha) through the latest noise estimates, integrated exactly.

.. math::
    x_b = \alpha_b \Big[ \frac{x_a}{\alpha_a} + \sum_{j<k} \epsilon_j
        \int_{\rho_a}^{\rho_b} \ell_j(\log\rho)\, d\rho \Big], \qquad \rho = \sigma/\alpha

References:
    Zhang and Chen, Fast Sampling of Diffusion Models with Exponential Integrator (2023), eq. 14-15, rho-AB with
    polynomials in log rho.
"""

from __future__ import annotations

from functools import partial

from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers.base import Solver

__all__ = ["deis_2", "deis_3"]


def _make(order: int) -> Solver:
    name = f"deis_{order}"
    compiler = partial(multistep, name, order=order, space="noise")
    return Solver(name, f"DEIS-{order}", order, False, 1, compiler, "Zhang and Chen 2023, eq. 14")


deis_2, deis_3 = _make(2), _make(3)
