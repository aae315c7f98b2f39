"""What a solver is: a named compiler from grids to plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan
from perrin.diffusion.solvers._channels import by_channel, channels
from perrin.errors import InvalidInput

__all__ = ["Solver"]


@dataclass(frozen=True)
class Solver:
    """A compiler from a `Grid` to a `Plan`.

    Attributes:
        name: as people write it.
        title: as people read it.
        order: of convergence, or None where no order is claimed.
        stochastic: draws noise after the start.
        minimum: fewest steps it can do.
        compile: the compiler; keyword options are the solver's own.
        reference: paper and equation.
        one_each: N steps are N evaluations; otherwise ``len(plan)`` says how many.
    """

    name: str
    title: str
    order: int | None
    stochastic: bool
    minimum: int
    compile: Callable[..., Plan]
    reference: str
    one_each: bool = True

    def check(self, steps: int) -> None:
        """Raise `InvalidInput` if this solver cannot do ``steps`` steps."""
        if steps < self.minimum:
            raise InvalidInput("steps", steps, f"at least {self.minimum} for {self.name}")

    def __call__(self, grid: Grid, **options: Any) -> Plan:
        """The plan of this solver on ``grid``."""
        self.check(len(grid))
        if grid.alpha.ndim == 1:
            return self.compile(grid, **options)
        return by_channel([self.compile(channel, **options) for channel in channels(grid)])
