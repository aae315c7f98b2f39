"""How a set of made shapes compares with a set of real ones, from the distances between all of them.

- `one_nna`: the share of shapes whose nearest other shape is of their own set. A half is ideal: the sets cannot be
  told apart. One: they are far from each other. Zero: each made shape is a copy of a real one.
- `coverage`: the share of real shapes that are the nearest real one of some made shape; more is better.
- `mmd`: minimum matching distance, the mean over real shapes of the distance to the nearest made one; less is better.

References:
    Achlioptas et al., Learning representations and generative models for 3D point clouds (2018), on coverage and
    minimum matching distance; Yang et al., PointFlow (2019), section 5.1, on 1-NNA; Lopez-Paz and Oquab, Revisiting
    classifier two-sample tests (2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perrin.errors import InvalidInput

__all__ = ["Scores", "coverage", "mmd", "one_nna", "scores"]

Floats = NDArray[np.float64]


class Scores(NamedTuple):
    """The three, and the numbers of shapes."""

    one_nna: float
    coverage: float
    mmd: float
    made: int
    real: int


def scores(made: Floats, between: Floats, real: Floats) -> Scores:
    """All three of made shapes N and real ones M.

    Args:
        made: (N, N) distances.
        between: (N, M).
        real: (M, M).
    """
    return Scores(one_nna(made, between, real), coverage(between), mmd(between), *between.shape)


def one_nna(made: Floats, between: Floats, real: Floats) -> float:
    """The leave-one-out accuracy of the nearest neighbour; where the nearest of both sets tie, half right.

    Raises:
        InvalidInput: fewer than two of a set, or shapes that do not fit together.
    """
    n, m = between.shape
    if made.shape != (n, n) or real.shape != (m, m) or min(n, m) < 2:
        raise InvalidInput("distances", [made.shape, between.shape, real.shape], "(N, N), (N, M), (M, M), N and M > 1")
    right = 0.0
    for own, other in ((made, between.min(1)), (real, between.min(0))):
        alone = own.astype(np.float64)
        np.fill_diagonal(alone, np.inf)
        nearest = alone.min(1)
        right += float((nearest < other).sum() + 0.5 * (nearest == other).sum())
    return float(right / (n + m))


def coverage(between: Floats) -> float:
    """Of distances (made, real)."""
    return float(len(np.unique(between.argmin(1))) / between.shape[1])


def mmd(between: Floats) -> float:
    """Of distances (made, real)."""
    return float(between.min(0).mean())
