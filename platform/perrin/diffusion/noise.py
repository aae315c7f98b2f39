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

__all__ = ["normal", "normals", "uniforms"]


def _bits(seed: int, draw: int, sample: int, field: str, count: int) -> npt.NDArray[np.float64]:
    """``count`` numbers in [0, 1) with 53 random bits each."""
    if not 0 <= seed < 2**64:
        raise InvalidInput("seed", seed, "an integer of at least 0 and below 2^64")
    counter = np.array([0, draw, sample, crc32(field.encode())], np.uint64)
    raw = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
    size = math.prod(shape)
    half = -(-size // 2)
    uniform = _bits(seed, draw, sample, field, 2 * half)
    # One minus it lies in (0, 1], so its logarithm is finite.
    radius = np.sqrt(-2 * np.log1p(-uniform[:half]))
    angle = 2 * np.pi * uniform[half:]
    flat = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
    return flat.astype(np.float32).reshape(shape)


def normals(seeds: Sequence[int], draw: int, shape: Sequence[int], field: str = "") -> npt.NDArray[np.float32]:
    """`normal` for every seed, stacked: float32 of shape (len(seeds), *shape)."""
    return np.stack([normal(seed, draw, shape, field=field) for seed in seeds])


def uniforms(seeds: Sequence[int], draw: int, shape: Sequence[int], field: str = "") -> npt.NDArray[np.float64]:
    """Uniform numbers in (0, 1), ends excluded: float64 of shape (len(seeds), *shape)."""
    made = [_bits(seed, draw, 0, field, math.prod(shape)).reshape(shape) for seed in seeds]
    return np.stack(made) + 2.0**-54
