r"""From a sample back to its noise, as plans for the same loop.

DDIM inversion runs the flow backwards with the estimate at the wrong end of each step, so it comes back only roughly.
EDICT keeps two coupled samples, each stepped with the other's estimate, and mixes them; every operation can be undone,
so it comes back to rounding.

.. math::
    x \leftarrow a x + b\, \varepsilon(y),\quad y \leftarrow a y + b\, \varepsilon(x),\quad
    x \leftarrow p x + (1 - p) y,\quad y \leftarrow p y + (1 - p) x

Both go between the first and the last time of a grid: a sample at the last time is clean but for its level of noise.
Hand it to `perrin.diffusion.start` as ``initial``, and EDICT's pair, `Run.copies`, from one of its plans to the other.

References:
    Song et al., Denoising Diffusion Implicit Models (2021), section 5.4;
    Wallace et al., EDICT: Exact Diffusion Inversion via Coupled Transformations (2023), eq. 14-17.
"""

from __future__ import annotations

from collections.abc import Mapping

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Plan, Row, Source, row
from perrin.errors import InvalidInput

__all__ = ["ddim_inversion", "edict", "edict_inversion"]


def _flow(grid: Grid, i: int, j: int) -> tuple[float, float]:
    """(a, b) of the step x_j = a x_i + b D from point i to point j, along the estimate D at point i."""
    kept = float(grid.sigma[j] / grid.sigma[i])
    return kept, float(grid.alpha[j]) - kept * float(grid.alpha[i])


def _two(grid: Grid) -> int:
    if len(grid) < 2:
        raise InvalidInput("steps", len(grid), "at least 2: inversion goes between a grid's first and last time")
    return len(grid)


def ddim_inversion(grid: Grid) -> Plan:
    """From the last time of ``grid`` to its first: N - 1 evaluations."""
    rows = []
    for i in range(_two(grid) - 1, 0, -1):
        kept, gain = _flow(grid, i, i - 1)
        rows.append(row(grid.times[i], grid.alpha[i], grid.sigma[i], {0: {"x": kept, "estimate": gain}}))
    return Plan("ddim_inversion", tuple(rows), registers=1, start=0.0, signal=1.0)


def _pair(grid: Grid, i: int, evaluated: int, writes: Mapping[int, Mapping[Source, float]]) -> Row:
    """A row at point i that evaluates one register of the pair."""
    return row(grid.times[i], grid.alpha[i], grid.sigma[i], writes, input={evaluated: 1.0})


def edict(grid: Grid, mix: float = 0.93) -> Plan:
    """Sampling that `edict_inversion` undoes: from the first to the last time, 2 (N - 1) evaluations.

    Args:
        grid: where to go along.
        mix: p, above 0.5 and at most 1; small ones keep the pair together, those near 1 are better conditioned.
    """
    p, rows = _checked(mix), []
    for i in range(_two(grid) - 1):
        a, b = _flow(grid, i, i + 1)
        # x by the estimate at y; then y by the estimate at the new x, and the two mixed.
        rows.append(_pair(grid, i, 1, {0: {0: a, "estimate": b}}))
        mixed: dict[Source, float] = {0: p, 1: (1 - p) * a, "estimate": (1 - p) * b}
        other: dict[Source, float] = {1: p * a, "estimate": p * b}
        rows.append(_pair(grid, i, 0, {0: mixed, 1: _plus(other, mixed, 1 - p)}))
    return Plan("edict", tuple(rows), registers=2, start=float(grid.sigma[0]), signal=float(grid.alpha[0]), copies=2)


def edict_inversion(grid: Grid, mix: float = 0.93) -> Plan:
    """The exact inverse of `edict`: from the last time of ``grid`` to its first."""
    p, rows = _checked(mix), []
    for i in range(_two(grid) - 2, -1, -1):
        a, b = _flow(grid, i, i + 1)
        # Unmix (y first), then take y's step back by the estimate at x, then x's by the estimate at y.
        unmixed_y: dict[Source, float] = {1: 1 / p, 0: -(1 - p) / p}
        unmixed_x: dict[Source, float] = _plus({0: 1 / p}, unmixed_y, -(1 - p) / p)
        writes: dict[int, dict[Source, float]] = {
            0: {"x": 1.0},
            1: {source: weight / a for source, weight in unmixed_y.items()} | {"estimate": -b / a},
        }
        rows.append(row(grid.times[i], grid.alpha[i], grid.sigma[i], writes, input=unmixed_x))
        rows.append(_pair(grid, i, 1, {0: {0: 1 / a, "estimate": -b / a}}))
    return Plan("edict_inversion", tuple(rows), registers=2, start=0.0, signal=1.0, copies=2)


def _plus(terms: dict[Source, float], more: dict[Source, float], factor: float) -> dict[Source, float]:
    keys = [*terms, *(key for key in more if key not in terms)]
    return {key: terms.get(key, 0.0) + factor * more.get(key, 0.0) for key in keys}


def _checked(mix: float) -> float:
    if not 0.5 < mix <= 1:
        raise InvalidInput("mix", mix, "a number above 0.5 and at most 1")
    return mix
