r"""SEEDS: exponential integrators of two and three stages for the reverse diffusion, on the noise estimate.

.. math::
    x_b = \tfrac{\alpha_b}{\alpha_a} x_a - 2 \sigma_b (e^h - 1)\, \epsilon_a
        - \tfrac{2 \sigma_b}{r_2} \Big(\tfrac{e^h - 1}{h} - 1\Big) (\epsilon_2 - \epsilon_a)
        + \alpha_b \sum_j \sqrt{s_j^2 - s_{j+1}^2}\; n_j

All rows of a block feel the same path: the draw n_j of the stretch between two nodes enters every point behind it.
Nodes are grid points, as in `perrin.diffusion.solvers.dpm_solver`.

References:
    Gonzalez et al., SEEDS: Exponential SDE Solvers for Fast High-Quality Sampling from Diffusion Models (2023),
    algorithms 2 and 3.
"""

from __future__ import annotations

from functools import partial

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._singlestep import singlestep
from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.dpm_solver import stage_of

__all__ = ["seeds_2", "seeds_3"]


def _compile(grid: Grid, order: int, name: str) -> Plan:
    return singlestep(name, grid, order, "noise", stage_of("paper"), eta=1.0)


def _make(order: int) -> Solver:
    name = f"seeds_{order}"
    compiler = partial(_compile, order=order, name=name)
    return Solver(name, f"SEEDS-{order}", None, True, 1, compiler, f"Gonzalez et al. 2023, algorithm {order}")


seeds_2, seeds_3 = _make(2), _make(3)
