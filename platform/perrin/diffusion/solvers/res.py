r"""RES, the refined exponential solver: exponential Runge-Kutta that meets every order condition, and multistep.

.. math::
    x_b = \tfrac{\sigma_b}{\sigma_a} x_a + \alpha_b h \sum_i b_i(-h)\, D_i, \qquad
    b_2 = \frac{\varphi_2}{c_2} \;\text{(2)}; \qquad
    b_2 = \frac{\gamma\, \varphi_2}{\gamma c_2 + c_3},\;
    b_3 = \frac{\varphi_2}{\gamma c_2 + c_3},\;
    a_{32} = \gamma c_2 \varphi_2(-c_2 h) + \frac{c_3^2}{c_2} \varphi_2(-c_3 h) \;\text{(3)}

with b_1 the rest of phi_1. gamma solves 2 (gamma c_2 + c_3) = 3 (gamma c_2^2 + c_3^2), so that the nodes c may be any:
they are grid points. The multistep form has c_2 < 0, the row before.

References:
    Zhang et al., Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling (2023),
    table 1 and algorithm 1; Hochbruck and Ostermann, Explicit Exponential Runge-Kutta Methods for Semilinear Parabolic
    Problems (2005), section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers._singlestep import singlestep
from perrin.diffusion.solvers._steps import Point, Step
from perrin.diffusion.solvers.base import Solver

__all__ = ["res_2m", "res_2s", "res_3s"]


def _stage(step: Step, nodes: Sequence[Point], block: Sequence[Point]) -> list[float]:
    if len(block) < 4 or len(nodes) == 1:
        return step.weights(nodes)
    # One gamma for the whole block: nodes are placed between its ends.
    c2, c3 = (Step("clean", block[0], block[3]).place(node) for node in block[1:3])
    gamma = (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))
    if len(nodes) == 2:
        first, second = step.weights(nodes)
        extra = gamma * Step("clean", block[0], block[1]).gains(2)[1] * step.b.alpha / block[1].alpha
        return [first - extra, second + extra]
    whole, slope = step.gains(2)
    second, third = (factor * slope / (gamma * c2 + c3) for factor in (gamma, 1.0))
    return [whole - second - third, second, third]


def _single(grid: Grid, order: int, name: str) -> Plan:
    return singlestep(name, grid, order, "clean", _stage)


def _make(suffix: str, order: int, multi: bool, reference: str) -> Solver:
    name = f"res_{suffix}"
    compiler = partial(multistep, name, order=2, space="clean") if multi else partial(_single, order=order, name=name)
    return Solver(name, f"RES {suffix.upper()}", order, False, 1, compiler, f"Zhang et al. 2023, {reference}")


res_2m = _make("2m", 2, True, "algorithm 1")
res_2s = _make("2s", 2, False, "table 1")
res_3s = _make("3s", 3, False, "table 1")
