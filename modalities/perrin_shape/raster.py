"""A depth buffer in NumPy: which triangle, or which ball of a cloud, is nearest in every pixel.

Everything that may cover a pixel is listed at once, and the least depth of each pixel kept; no loop over triangles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hits", "balls", "triangles"]

Floats = NDArray[np.float32]

_SIDES = np.array([-1, 1], np.float32)

MOST = 4_000_000
"""Pairs of pixel and triangle that are looked at in one go."""


class Hits(NamedTuple):
    """What is seen.

    Attributes:
        pixels: (k,) numbers of the pixels that are covered, row by row.
        items: (k,) the triangle or ball in front there.
        where: (k, 3) weights of a triangle's corners, or a ball's normal in camera space.
        depth: (k,).
    """

    pixels: NDArray[np.int64]
    items: NDArray[np.int64]
    where: Floats
    depth: Floats


def triangles(
    places: Floats, depths: Floats, faces: NDArray[np.int32], width: int, height: int, cull: bool = False
) -> Hits:
    """The triangles in front.

    Args:
        places: (v, 2) in pixels, x to the right, y downwards, a pixel's middle at its number plus a half.
        depths: (v,) that grow away from the viewer.
        faces: (f, 3).
        width, height: of the picture.
        cull: leave out those that are seen from behind; of a closed surface they are never in front.
    """
    x, y, z = places[faces, 0], places[faces, 1], depths[faces]
    doubled = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    low_x, high_x = _span(x, width)
    low_y, high_y = _span(y, height)
    wide = np.where(
        ((doubled < -1e-12) if cull else (np.abs(doubled) > 1e-12)) & (high_y > low_y), high_x - low_x, 0
    ).clip(0)
    nearest = np.full(width * height, np.inf, np.float32)
    kept: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]] = []
    for item, px, py in _boxed(low_x, low_y, wide, (high_y - low_y).clip(0)):
        cx, cy = px.astype(np.float32) + np.float32(0.5), py.astype(np.float32) + np.float32(0.5)
        x0, y0, x1, y1, x2, y2 = (v[item] for v in (x[:, 0], y[:, 0], x[:, 1], y[:, 1], x[:, 2], y[:, 2]))
        a = ((x1 - cx) * (y2 - cy) - (x2 - cx) * (y1 - cy)) / doubled[item]
        b = ((x2 - cx) * (y0 - cy) - (x0 - cx) * (y2 - cy)) / doubled[item]
        c = 1 - a - b
        inside = np.flatnonzero((a >= 0) & (b >= 0) & (c >= 0))
        item, pixel = item[inside], (py[inside] * width + px[inside]).astype(np.int64)
        weights = np.stack([a[inside], b[inside], c[inside]], 1).astype(np.float32)
        kept.append((pixel, item, weights, np.einsum("nk,nk->n", weights, z[item]).astype(np.float32)))
        np.minimum.at(nearest, pixel, kept[-1][3])
    return _front(kept, nearest)


def _boxed(
    low_x: NDArray[Any], low_y: NDArray[Any], wide: NDArray[Any], high: NDArray[Any]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """The pixels of every item's box, a part of the items at a time: the item of each, its column and its row."""
    counts = wide * high
    chosen = np.flatnonzero(counts)
    for part in _parts(counts[chosen]):
        item, step = _listed(counts, chosen[part])
        yield item, low_x[item] + step % wide[item], low_y[item] + step // wide[item]


def balls(places: Floats, depths: Floats, radii: Floats, width: int, height: int) -> Hits:
    """The balls in front: places (n, 2), depths (n,) and radii (n,) in pixels; ``where`` is (x, y up, towards us)."""
    low_x, high_x = _span(places[:, :1] + radii[:, None] * _SIDES, width)
    low_y, high_y = _span(places[:, 1:] + radii[:, None] * _SIDES, height)
    wide = (high_x - low_x).clip(0)
    nearest = np.full(width * height, np.inf, np.float32)
    kept: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]] = []
    for item, px, py in _boxed(low_x, low_y, wide, (high_y - low_y).clip(0)):
        u = (px + np.float32(0.5) - places[item, 0]) / radii[item]
        v = (places[item, 1] - py - np.float32(0.5)) / radii[item]
        inside = np.flatnonzero(u * u + v * v <= 1)
        item, pixel = item[inside], (py[inside] * width + px[inside]).astype(np.int64)
        u, v = u[inside], v[inside]
        towards = np.sqrt(1 - u * u - v * v)
        depth = (depths[item] - radii[item] * towards).astype(np.float32)
        kept.append((pixel, item, np.stack([u, v, towards], 1).astype(np.float32), depth))
        np.minimum.at(nearest, pixel, depth)
    return _front(kept, nearest)


def _span(values: Floats, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one after the last pixel whose middle may be between the least and greatest of ``values``."""
    least, most = reduce(np.minimum, values.T), reduce(np.maximum, values.T)  # much faster than along short rows
    low = np.ceil(least - 0.5).clip(0, limit).astype(np.int64)
    high = (np.floor(most - 0.5) + 1).clip(0, limit).astype(np.int64)
    return low, high


def _parts(counts: NDArray[np.int64]) -> list[slice]:
    ends = np.cumsum(counts)
    parts, begin = [], 0
    while begin < len(counts):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + MOST, side="right")))
        parts.append(slice(begin, end))
        begin = end
    return parts


def _listed(counts: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each of ``chosen`` as often as its count, and the numbers from zero within each."""
    many = counts[chosen]
    item = chosen.repeat(many)
    begins = np.cumsum(many) - many
    return item, np.arange(len(item)) - begins.repeat(many)


def _front(kept: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]], nearest: Floats) -> Hits:
    if not kept:
        empty = np.zeros(0, np.int64)
        return Hits(empty, empty, np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    pixel, item, where, depth = (np.concatenate(column) for column in zip(*kept, strict=True))
    front = np.flatnonzero(depth == nearest[pixel])
    _, first = np.unique(pixel[front], return_index=True)  # two at the same depth: the first
    front = front[first]
    return Hits(pixel[front], item[front], where[front], depth[front])
