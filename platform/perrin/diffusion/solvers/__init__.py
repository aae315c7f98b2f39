"""Solvers: one paper per file, each a compiler from a time grid to a plan. NumPy only."""

from __future__ import annotations

from perrin.diffusion.solvers.base import Solver
from perrin.diffusion.solvers.ddim import ddim
from perrin.diffusion.solvers.ddpm import ddpm
from perrin.diffusion.solvers.dpmpp_2m import dpmpp_2m
from perrin.diffusion.solvers.flow_euler import flow_euler
from perrin.errors import UnknownName

__all__ = ["SOLVERS", "Solver", "ddim", "ddpm", "dpmpp_2m", "flow_euler", "solver"]

SOLVERS: dict[str, Solver] = {s.name: s for s in (ddim, ddpm, dpmpp_2m, flow_euler)}


def solver(name: str) -> Solver:
    """The solver called ``name``.

    Raises:
        UnknownName: with the solvers there are.
    """
    if name not in SOLVERS:
        raise UnknownName("sampler", name, "one of " + ", ".join(SOLVERS))
    return SOLVERS[name]
