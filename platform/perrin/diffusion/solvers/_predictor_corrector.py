"""Multistep predictor with a corrector that costs no evaluation.

The value at a predicted point also corrects the step that led there. So a row carries two sums to the next: the
predicted input (register 0) and the corrected point but for the value that is still to come (register 1). The next row
adds that value with its weight and goes on from the corrected point.
"""

from __future__ import annotations

from itertools import pairwise

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Draw, Plan, Row, Source, row
from perrin.diffusion.solvers._steps import Second, Step, points, renoised
from perrin.diffusion.solvers._weights import mix

__all__ = ["predictor_corrector"]


def predictor_corrector(
    name: str, grid: Grid, predictor: int, corrector: int, second: Second, *, eta: float = 0.0, s_noise: float = 1.0
) -> Plan:
    """The plan of the pair, in clean space.

    Args:
        name: of the solver.
        grid: of N points, for N rows.
        predictor: number of values in its polynomial, 1 to 4.
        corrector: number of values in its polynomial, the new one included, 0 to 4; 0 is no corrector.
        second: how two values are weighed.
        eta: 0 for the flow, 1 for the reverse diffusion; predictor and corrector of a step share its draw.
        s_noise: scale of the draws.
    """
    along = points(grid)
    count, depth = len(along) - 1, max(predictor, corrector - 1, 1) - 1
    rows: list[Row] = []
    corrected: dict[Source, float] = {"x": 1.0}
    for i, (a, b) in enumerate(pairwise(along)):
        step = Step.of("clean", a, b, eta)
        held = [along[i - j] for j in range(min(i, depth) + 1) if j == 0 or along[i - j].alpha > 0]
        # Orders fall towards the clean end, where extrapolation does harm.
        reach = 1 if step.single else min(predictor, len(held), count - i)
        nodes = min(corrector, len(held) + 1, count - i + 1)
        present = {j: {"estimate": 1.0} if j == 0 else {2 + (i - j) % depth: 1.0} for j in range(len(held))}
        start = mix((step.kept, corrected), (step.noise * s_noise, {Draw(i + 1): 1.0}))
        ahead = step.weights(held[:reach], second)
        predicted = mix((1.0, start), *((w, present[j]) for j, w in enumerate(ahead)))
        writes = {0: renoised(predicted, step.share, a)}
        if step.single or nodes < 1:
            partial, last = predicted, 0.0
        else:
            weights = step.weights([*held[: nodes - 1], b], second)
            partial, last = mix((1.0, start), *((w, present[j]) for j, w in enumerate(weights[:-1]))), weights[-1]
        corrected = {1: 1.0, "estimate": last}
        if i + 1 < count:
            writes[1] = renoised(partial, step.share, a)
        if depth:
            writes[2 + i % depth] = {"estimate": 1.0}
        rows.append(row(a.t, a.alpha, a.sigma, writes))
    return Plan(name, tuple(rows), registers=2 + depth, start=along[0].sigma)
