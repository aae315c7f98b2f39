"""Two pictures are the same to the eye where their 16x16 thumbnails differ by little everywhere.

The thumbnail (premultiplied colour and alpha) serves as perceptual hash; unlike a hash of lightness alone it tells a
red circle from a blue one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .render import premultiplied

__all__ = ["first_of_each", "thumbnails"]

_RMS = 0.010
_PEAK = 0.10


def thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Uint8 [N, 64, 64, 4] -> float32 [N, 1024]: means of 4x4 blocks, premultiplied, 0..1."""
    small = np.empty((len(pictures), 16, 16, 4), np.float32)
    for start in range(0, len(pictures), 256):
        block = premultiplied(pictures[start : start + 256])
        small[start : start + 256] = block.reshape(-1, 16, 4, 16, 4, 4).mean((2, 4))
    return small.reshape(len(pictures), 16 * 16 * 4)


def first_of_each(pictures: NDArray[np.uint8]) -> tuple[list[int], dict[int, list[int]]]:
    """Indices of uint8 [N, 64, 64, 4] that are not duplicates of an earlier one, and for each of them its
    duplicates."""
    thumbs = thumbnails(pictures)
    square = (thumbs**2).sum(1)
    near = square[:, None] + square[None] - 2 * thumbs @ thumbs.T < _RMS**2 * thumbs.shape[1]
    firsts: list[int] = []
    merged: dict[int, list[int]] = {}
    unique = np.zeros(len(thumbs), bool)
    for index in range(len(thumbs)):
        earlier = np.flatnonzero(near[index, :index] & unique[:index])
        same = [int(i) for i in earlier if np.abs(thumbs[i] - thumbs[index]).max() < _PEAK]
        if same:
            merged.setdefault(same[0], []).append(index)
        else:
            unique[index] = True
            firsts.append(index)
    return firsts, merged
