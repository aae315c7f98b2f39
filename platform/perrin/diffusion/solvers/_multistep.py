"""Linear multistep: a polynomial through the present value and those of earlier rows, extrapolated over the step.

A row writes its value (D or epsilon) over the oldest one, so order k takes k - 1 registers of history. The first rows
have less of it, pure noise has none to give, and the step to the clean end is of the first order (but in ratio space).
"""

from __future__ import annotations

from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, row
from perrin.diffusion.solvers._steps import Second, Space, Step, points, reading, renoised
from perrin.diffusion.solvers._weights import mix

__all__ = ["multistep"]


def multistep(
    name: str,
    grid: Grid,
    order: int,
    space: Space,
    *,
    second: Second = "exact",
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Plan:
    """The plan of the method of ``order`` in ``space``.

    Args:
        name: of the solver.
        grid: of N points, for N rows.
        order: 1 to 5, the number of values in the polynomial.
        space: of the polynomial.
        second: how two values are weighed.
        eta: 0 for the flow, 1 for the reverse diffusion.
        s_noise: scale of the draws.
    """
    along, depth = points(grid), order - 1
    rows: list[Row] = []
    for i, (a, b) in enumerate(pairwise(along)):
        step = Step.of(space, a, b, eta)
        back = [j for j in range(1 if step.single else min(order, i + 1)) if j == 0 or along[i - j].alpha > 0]
        weights = step.weights([along[i - j] for j in back], second)
        terms = mix(
            (step.kept, {"x": 1.0}),
            (weights[0], reading(step.space, a)),
            *((weight, {1 + (i - j) % depth: 1.0}) for j, weight in zip(back[1:], weights[1:], strict=True)),
            (step.noise * s_noise, {Draw(i + 1): 1.0}),
        )
        writes = {0: renoised(terms, step.share, a)}
        if depth:
            writes[1 + i % depth] = reading(space, a)
        rows.append(row(a.t, a.alpha, a.sigma, writes))
    return Plan(name, tuple(rows), registers=1 + depth, start=along[0].sigma)
