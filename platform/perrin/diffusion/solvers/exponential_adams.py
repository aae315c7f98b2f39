r"""Exponential Adams-Bashforth: the polynomial through the latest k clean estimates, integrated exactly in log-SNR.

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} x_a + \alpha_b \sum_{j<k} D_j \int_0^h e^{-(h-\tau)}\, \ell_j(\tau)\, d\tau

References:
    Hochbruck and Ostermann, Exponential Multistep Methods of Adams-Type (2011), eq. 2.7, on the equation of
    Lu et al., DPM-Solver++ (2022), eq. 8.
"""

from __future__ import annotations

from functools import partial

from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers.base import Solver

__all__ = ["eab2", "eab3", "eab4"]


def _make(order: int) -> Solver:
    name = f"eab{order}"
    compiler = partial(multistep, name, order=order, space="clean")
    title = f"Exponential Adams-Bashforth {order}"
    return Solver(name, title, order, False, 1, compiler, "Hochbruck and Ostermann 2011, eq. 2.7")


eab2, eab3, eab4 = _make(2), _make(3), _make(4)
