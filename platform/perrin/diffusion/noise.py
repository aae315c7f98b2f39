r"""Counter-based noise: every draw has an address, and no draw depends on another.

The draw named (seed, sample, draw, field) is made by Philox-4x64 with key = seed and counter = (block, draw, sample,
field), turned into normals by the Box-Muller transform in float64 and rounded to float32. So a sample's noise is the
same in any batch, on any device, in any order, after any interruption. It is made on the CPU.

.. math:: n = \sqrt{-2 \ln u_1}\,(\cos 2\pi u_2,\ \sin 2\pi u_2)

References:
    Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput

__all__ = ["Draws", "normal", "normals", "uniforms"]

AHEAD = 2**17
"""Numbers made in one go."""

Address = tuple[int, int, int, str]
"""(seed, draw, sample, field)."""


def _uniform(addresses: Sequence[Address], count: int) -> npt.NDArray[np.float64]:
    """(A, count) numbers in [0, 1) with 53 random bits each."""
    raw = np.empty((len(addresses), count), np.uint64)
    for row, (seed, draw, sample, field) in zip(raw, addresses, strict=True):
        if not 0 <= seed < 2**64:
            raise InvalidInput("seed", seed, "an integer of at least 0 and below 2^64")
        counter = np.array([0, draw, sample, crc32(field.encode())], np.uint64)
        row[:] = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter).random_raw(count)
    raw >>= np.uint64(11)
    made = raw.astype(np.float64)
    made *= 2.0**-53
    return made


def _normal(addresses: Sequence[Address], shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """float32 of shape (A, *shape)."""
    size = math.prod(shape)
    half = -(-size // 2)
    uniform = _uniform(addresses, 2 * half)
    # One minus it lies in (0, 1], so its logarithm is finite.
    radius = np.sqrt(-2 * np.log1p(-uniform[:, :half]))
    angle = 2 * np.pi * uniform[:, half:]
    made = np.empty((len(addresses), 2 * half), np.float32)
    made[:, :half] = radius * np.cos(angle)
    made[:, half:] = radius * np.sin(angle)
    return made[:, :size].reshape(len(addresses), *shape)


def normal(seed: int, draw: int, shape: Sequence[int], *, sample: int = 0, field: str = "") -> npt.NDArray[np.float32]:
    """Standard normal noise.

    Args:
        seed: 0 to 2^64 - 1.
        draw: which draw of the sample; 0 is the starting noise.
        shape: of the result.
        sample: which of several samples that share a seed.
        field: name of the field of a state with several.

    Returns:
        float32 array of ``shape``.
    """
    made: npt.NDArray[np.float32] = _normal([(seed, draw, sample, field)], shape)[0]
    return made


def normals(seeds: Sequence[int], draw: int, shape: Sequence[int], field: str = "") -> npt.NDArray[np.float32]:
    """`normal` for every seed, stacked: float32 of shape (len(seeds), *shape)."""
    return _normal([(seed, draw, 0, field) for seed in seeds], shape)


def uniforms(seeds: Sequence[int], draw: int, shape: Sequence[int], field: str = "") -> npt.NDArray[np.float64]:
    """Uniform numbers in (0, 1), ends excluded: float64 of shape (len(seeds), *shape)."""
    made = _uniform([(seed, draw, 0, field) for seed in seeds], math.prod(shape))
    made += 2.0**-54
    return made.reshape(len(seeds), *shape)


class Draws:
    """The draws of a run, made several at a time where they are small.

    Args:
        seeds: one per sample.
        shape: of one sample.
        field: name of the field.
        order: numbers of the draws in the order they will be wanted; another may be asked for, but is made alone.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], field: str, order: Sequence[int]) -> None:
        self._seeds, self._shape, self._field = seeds, tuple(shape), field
        self._order = tuple(order)
        self._ahead = max(1, AHEAD // max(1, len(seeds) * math.prod(shape)))
        self._made: dict[int, npt.NDArray[np.float32]] = {}

    def __call__(self, index: int) -> npt.NDArray[np.float32]:
        """Draw ``index`` of every sample: float32 of shape (B, *shape)."""
        if index not in self._made:
            at = self._order.index(index) if index in self._order else len(self._order)
            wanted = [index, *self._order[at + 1 : at + self._ahead]]
            addresses = [(seed, draw, 0, self._field) for draw in wanted for seed in self._seeds]
            made = _normal(addresses, self._shape).reshape(len(wanted), len(self._seeds), *self._shape)
            self._made = dict(zip(wanted, made, strict=True))
        return self._made[index]
