r"""Euler's method on the probability flow, and with ancestral noise.

.. math::
    \frac{x_b}{\alpha_b} = \frac{x_a}{\alpha_a} + (s_{down} - s_a)\, \epsilon + s_{up}\, n, \qquad
    s_{up}^2 = \eta^2\, s_b^2\, \frac{s_a^2 - s_b^2}{s_a^2}, \quad s_{down}^2 = s_b^2 - s_{up}^2

With s = sigma / alpha this is DDIM, with its eta; and on rectified flow it is Euler's method in time. One compiler
serves all, under the names that people look for.

References:
    Karras et al. (2022), eq. 4; Song et al., Denoising Diffusion Implicit Models (2021), eq. 13 and 16;
    Liu et al., Flow Straight and Fast (2022), eq. 2; Katherine Crowson, k-diffusion (2022), ``sample_euler_ancestral``.
"""

from __future__ import annotations

from dataclasses import replace

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.process import Flow
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.ddim import ddim
from perrin.errors import InvalidInput

__all__ = ["euler", "euler_ancestral", "flow_euler"]


def _euler(grid: Grid) -> Plan:
    return replace(ddim(grid), solver="euler")


def _ancestral(grid: Grid, eta: float = 1.0) -> Plan:
    return replace(ddim(grid, eta=eta), solver="euler_ancestral")


def _flow(grid: Grid) -> Plan:
    if not isinstance(grid.process, Flow):
        raise InvalidInput("sampler", "flow_euler", "a rectified-flow model; euler serves every other")
    return replace(ddim(grid), solver="flow_euler")


euler = Solver("euler", "Euler", 1, False, 1, _euler, "Karras et al. 2022, eq. 4")
flow_euler = Solver("flow_euler", "Euler (flow)", 1, False, 1, _flow, "Liu et al. 2022, eq. 2")
euler_ancestral = Solver("euler_ancestral", "Euler ancestral", None, True, 1, _ancestral, "Song et al. 2021, eq. 16")
