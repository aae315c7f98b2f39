r"""DPM-Solver: exponential integrators on the noise estimate, singlestep and multistep.

.. math::
    x_b &= \tfrac{\alpha_b}{\alpha_a} x_a - \sigma_b (e^h - 1)\, \epsilon_a
        - \tfrac{\sigma_b}{2 r_1} (e^h - 1) (\epsilon_1 - \epsilon_a) &\quad\text{(2)} \\
    x_b &= \tfrac{\alpha_b}{\alpha_a} x_a - \sigma_b (e^h - 1)\, \epsilon_a - \tfrac{\sigma_b}{r_2}
        \Big(\tfrac{e^h - 1}{h} - 1\Big) (\epsilon_2 - \epsilon_a) &\quad\text{(3)}

with r the place of a node between a and b in lambda. The singlestep ones spend grid points as their nodes (equation 3
wants r_2 near 2/3, which a smooth grid has); the multistep ones take their nodes from the rows before.

References:
    Lu et al., DPM-Solver (2022), algorithms 1, 4 and 5;
    Lu et al., DPM-Solver++ (2022), appendix B, for the multistep ones, with the second slope at its exact integral.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._multistep import multistep
from perrin.diffusion.solvers._singlestep import Stage, singlestep
from perrin.diffusion.solvers._steps import Point, Step
from perrin.diffusion.solvers.base import Solver
from perrin.errors import InvalidInput

__all__ = [
    "VARIANTS",
    "dpm_solver_1",
    "dpm_solver_2m",
    "dpm_solver_2s",
    "dpm_solver_3m",
    "dpm_solver_3s",
    "stage_of",
]


def _paper(step: Step, nodes: Sequence[Point], block: Sequence[Point]) -> list[float]:
    if len(nodes) == 3:
        first, last = step.weights([nodes[0], nodes[2]])
        return [first, 0.0, last]
    return step.weights(nodes, "bh2" if len(block) == 3 else "exact")


def _midpoint(step: Step, nodes: Sequence[Point], block: Sequence[Point]) -> list[float]:
    return _paper(step, nodes, block) if len(nodes) == 3 else step.weights(nodes, "bh2")


def _heun(step: Step, nodes: Sequence[Point], block: Sequence[Point]) -> list[float]:
    return step.weights(nodes)


VARIANTS: dict[str, Stage] = {"paper": _paper, "midpoint": _midpoint, "heun": _heun}
"""``paper``: as above; ``midpoint``: two nodes by equation 2 everywhere; ``heun``: the polynomial through all nodes."""


def stage_of(variant: str) -> Stage:
    """The stage of that name, or `InvalidInput`."""
    if variant not in VARIANTS:
        raise InvalidInput("variant", variant, "one of " + ", ".join(VARIANTS))
    return VARIANTS[variant]


def _single(grid: Grid, order: int, name: str, variant: str = "paper") -> Plan:
    return singlestep(name, grid, order, "noise", stage_of(variant))


def _make(suffix: str, order: int, minimum: int, reference: str) -> Solver:
    name = f"dpm_solver_{suffix}"
    if suffix.endswith("s"):
        compiler = partial(_single, order=order, name=name)
    else:
        compiler = partial(multistep, name, order=order, space="noise", second="bh2")
    return Solver(name, f"DPM-Solver-{suffix.upper()}", order, False, minimum, compiler, f"Lu et al. 2022, {reference}")


dpm_solver_1 = _make("1", 1, 1, "eq. 3.7")
dpm_solver_2s = _make("2s", 2, 1, "algorithm 4")
dpm_solver_3s = _make("3s", 3, 1, "algorithm 5")
dpm_solver_2m = _make("2m", 2, 1, "appendix B")
dpm_solver_3m = _make("3m", 3, 1, "appendix B")
