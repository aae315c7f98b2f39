"""A function of a large grid, computed tile by tile: tiles overlap, and where they do one fades into the next.

References:
    The overlapping tiles of latent upscalers; the weights are a partition of unity, so that what is the same in both
    tiles comes out unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from perrin.errors import InvalidInput

__all__ = ["tiled", "tiles"]


def tiles(side: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles of one axis, the last one as long as the others wherever that is possible."""
    if side <= tile:
        return [(0, side)]
    count = -(-(side - overlap) // (tile - overlap))
    starts = [round(i * (side - tile) / (count - 1)) for i in range(count)]
    return [(start, start + tile) for start in starts]


def tiled(function: Callable[[Tensor], Tensor], x: Tensor, factor: int, tile: int, overlap: int) -> Tensor:
    """``function(x)``, tile by tile.

    Args:
        function: of (B, C, *sides), giving (B, D, *sides * factor).
        x: (B, C, *sides).
        factor: see above.
        tile: side of a tile in places of x.
        overlap: places that neighbours share at least.

    Raises:
        InvalidInput: the overlap is not smaller than half a tile.
    """
    if not 0 <= 2 * overlap < tile:
        raise InvalidInput("overlap", overlap, f"0 to {(tile - 1) // 2}, less than half a tile")
    sides = x.shape[2:]
    spans = [tiles(side, tile, overlap) for side in sides]
    weights = [_weights(axis, side, factor) for axis, side in zip(spans, sides, strict=True)]
    out: Tensor | None = None
    for place in product(*(range(len(axis)) for axis in spans)):
        cut = tuple(slice(*spans[axis][i]) for axis, i in enumerate(place))
        part = function(x[(slice(None), slice(None), *cut)])
        if out is None:
            out = part.new_zeros(*part.shape[:2], *(side * factor for side in sides))
        for axis, i in enumerate(place):
            shape = [1] * part.ndim
            shape[2 + axis] = -1
            part = part * weights[axis][i].to(part).view(shape)
        out[(slice(None), slice(None), *(slice(c.start * factor, c.stop * factor) for c in cut))] += part
    assert out is not None
    return out


def _weights(spans: Sequence[tuple[int, int]], side: int, factor: int) -> list[Tensor]:
    """For each tile of an axis how much it counts at each place of it; at every place they sum to one."""
    ramps = list(_ramps(spans, factor))
    total = torch.zeros(side * factor)
    for (begin, end), ramp in zip(spans, ramps, strict=True):
        total[begin * factor : end * factor] += ramp
    return [ramp / total[begin * factor : end * factor] for (begin, end), ramp in zip(spans, ramps, strict=True)]


def _ramps(spans: Sequence[tuple[int, int]], factor: int) -> Iterator[Tensor]:
    for number, (begin, end) in enumerate(spans):
        ramp = torch.ones((end - begin) * factor)
        if number and (shared := (spans[number - 1][1] - begin) * factor) > 0:
            ramp[:shared] = (torch.arange(shared) + 0.5) / shared
        if number + 1 < len(spans) and (shared := (end - spans[number + 1][0]) * factor) > 0:
            ramp[-shared:] *= (torch.arange(shared).flip(0) + 0.5) / shared
        yield ramp
