"""Singlestep: blocks of up to three rows, whose inner nodes are grid points.

A block over grid points a, m1, m2, b goes from a to m1, from a to m2 and from a to b, with one more value each time. So
N steps are N evaluations, whatever the order, and where the nodes lie is a matter of the grid. Blocks shorten at the
end, and the step to the clean end is a block of its own, as is one from pure noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.solvers._steps import Point, Space, Step, points, reading, renoised
from perrin.diffusion.solvers._weights import mix

__all__ = ["Stage", "blocks", "singlestep"]

Stage = Callable[[Step, Sequence[Point], Sequence[Point]], Sequence[float]]
"""(step from a, the points evaluated so far, all points of the block with its end) -> weights of the values so far."""


def blocks(along: Sequence[Point], order: int) -> list[int]:
    """Lengths of the blocks over N + 1 points: as many of ``order`` as fit before the last row, which is alone."""
    count = len(along) - 1
    head = [1] if along[0].alpha <= 0 and count > 1 else []
    inner = count - len(head) - 1
    rest = [inner % order] if inner % order else []
    return head + [order] * (inner // order) + rest + [1]


def singlestep(name: str, grid: Grid, order: int, space: Space, stage: Stage, *, eta: float = 0.0) -> Plan:
    """The plan of the method of ``order`` in ``space``.

    Args:
        name: of the solver.
        grid: of N points, for N rows.
        order: 2 or 3, rows in a full block.
        space: of the values.
        stage: weights of the values.
        eta: 0 for the flow, 1 for the reverse diffusion, whose draws between nodes are shared by a block's rows.
    """
    along, rows, first = points(grid), list[Row](), 0
    for length in blocks(along, order):
        nodes = along[first : first + length + 1]
        for k, (here, target) in enumerate(pairwise(nodes)):
            step = Step.of(space, nodes[0], target, eta)
            weights = stage(step, nodes[: k + 1], nodes)
            present = reading(step.space, here)
            start: Source = "x" if k == 0 else 1
            values = [(w, present if j == k else {2 + j: 1.0}) for j, w in enumerate(weights)]
            path = [(step.segment(*nodes[j : j + 2]), {Draw(first + j + 1): 1.0}) for j in range(k + 1) if eta]
            terms = mix((step.kept, {start: 1.0}), *values, *path)
            writes = {0: renoised(terms, step.share, here) if k == 0 else terms}
            if k + 1 < length:
                writes[2 + k] = present
                if k == 0:
                    # The later rows start here too: what they keep of x is turned to the direction once, in advance.
                    last = Step.of(space, nodes[0], nodes[-1], eta)
                    writes[1] = renoised({"x": 1.0}, last.share / last.kept, here)
            rows.append(row(here.t, here.alpha, here.sigma, writes))
        first += length
    return Plan(name, tuple(rows), registers=1 + order, start=along[0].sigma)
