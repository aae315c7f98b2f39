"""Triangles with colours, and points drawn from what of them can be seen from outside, with normals that point outward.

Windings of parts and normals of furniture cannot be trusted, and drawers hold what nobody sees. So many points are
drawn from all triangles, and looked at from 26 directions: a point counts if nothing much nearer lies in its cell of a
grid across the view; its normal is turned to where it is seen from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["Seen", "Triangles", "normalised", "seen"]

Floats = NDArray[np.float32]

DRAWN = 40_000
"""Points that are drawn and looked at."""

KEPT = 24_000
"""Most points that are kept of those."""

_UNITS = np.array([d for d in product((-1, 0, 1), repeat=3) if any(d)], np.float32)
DIRECTIONS = (_UNITS / np.linalg.norm(_UNITS, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Triangles:
    """A soup of triangles.

    Attributes:
        corners: (n, 3, 3), y up.
        colours: (n, 3) sRGB, 0 to 255.
        places: (n, 3, 2) texture coordinates, or None.
        texture: (n,) which of ``textures``, or -1.
        textures: (side, side, 4) uint8 each.
    """

    corners: Floats
    colours: Floats
    places: Floats | None = None
    texture: NDArray[np.int64] | None = None
    textures: tuple[NDArray[np.uint8], ...] = field(default=())


@dataclass(frozen=True)
class Seen:
    """Points (n, 3), outward normals (n, 3), sRGB colours (n, 3), and the area that each stands for."""

    points: Floats
    normals: Floats
    colours: NDArray[np.uint8]
    area: float


def normalised(points: Floats) -> tuple[Floats, float]:
    """The middle of the box around ``points`` (3,), and the distance of the farthest from it.

    Raises:
        ValueError: they all lie in one place.
    """
    middle = ((points.min(0) + points.max(0)) / 2).astype(np.float32)
    size = float(np.linalg.norm(points - middle, axis=1).max())
    if not np.isfinite(size) or size < 1e-6:
        raise ValueError("a shape without extent")
    return middle, size


def seen(soup: Triangles, seed: int = 0) -> Seen:
    """Points of the outside of ``soup``, centred, the farthest corner at distance one.

    Raises:
        ValueError: it has no area.
    """
    middle, size = normalised(soup.corners.reshape(-1, 3))
    corners = (soup.corners - middle) / size
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(cross, axis=1) / 2
    total = float(areas.sum())
    if not np.isfinite(total) or total < 1e-6:
        raise ValueError("a shape without area")
    random = np.random.default_rng(seed)
    levels = (np.arange(DRAWN) + random.random()) / DRAWN
    chosen = np.minimum(np.searchsorted(np.cumsum(areas / total), levels), len(areas) - 1)
    a, b = random.random((2, DRAWN), np.float32)
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    weights = np.stack([1 - a - b, a, b], 1)[..., None]
    points = (corners[chosen] * weights).sum(1).astype(np.float32)
    normals = (cross[chosen] / np.maximum(2 * areas[chosen, None], 1e-12)).astype(np.float32)
    colours, solid = _coloured(soup, chosen, weights)
    points, normals, colours = points[solid], normals[solid], colours[solid]
    side = _visible(points, normals, 2.4 * (total / DRAWN) ** 0.5)
    there = side != 0
    if there.sum() < 64:
        raise ValueError("a shape that cannot be seen")
    normals = normals * np.sign(side)[:, None]
    keep = np.flatnonzero(there)
    area = total / DRAWN * len(keep)
    if len(keep) > KEPT:
        keep = np.sort(random.choice(keep, KEPT, replace=False))
    return Seen(points[keep], normals[keep].astype(np.float32), colours[keep], area / len(keep))


def _coloured(
    soup: Triangles, chosen: NDArray[np.int64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours of the points, and which of them a texture does not cut out."""
    colours = soup.colours[chosen].copy()
    solid = np.ones(len(chosen), bool)
    if soup.places is not None and soup.texture is not None:
        at = (soup.places[chosen] * weights).sum(1)
        for number, picture in enumerate(soup.textures):
            mine = soup.texture[chosen] == number
            side = picture.shape[0]
            row = np.floor((1 - at[mine, 1] % 1) * side).astype(int) % side
            column = np.floor((at[mine, 0] % 1) * side).astype(int) % side
            pixel = picture[row, column]
            colours[mine] = pixel[:, :3] * (colours[mine] / 255)
            solid[mine] = pixel[:, 3] > 100
    return colours.clip(0, 255).astype(np.uint8), solid


def _visible(points: Floats, normals: Floats, cell: float) -> Floats:
    """Of each point, from which side of its normal it is seen more (its sign); 0: it is not seen."""
    count = np.zeros(len(points), np.int16)
    side = np.zeros(len(points), np.float32)
    width = int(2.1 / cell) + 1
    for direction in DIRECTIONS:
        helper = np.eye(3, dtype=np.float32)[np.abs(direction).argmin()]
        u = np.cross(direction, helper)
        u /= np.linalg.norm(u)
        frame = np.stack([u, np.cross(direction, u), direction], 1).astype(np.float32)
        seen_as = points @ frame
        grid = ((seen_as[:, :2] + 1.05) / cell).astype(np.int32)
        where = grid[:, 0] * width + grid[:, 1]
        nearest = np.full(width * width, -9.0, np.float32)
        np.maximum.at(nearest, where, seen_as[:, 2])
        behind = nearest[where] - seen_as[:, 2]
        facing = normals @ direction
        slope = np.sqrt(np.maximum(1 - facing**2, 0)) / np.maximum(np.abs(facing), 0.2)
        slack = cell * (0.7 + np.minimum(slope, 3))
        front = (behind < slack) & (np.abs(facing) > 0.2)
        count += front
        side += np.where(front, facing * (1 - behind / slack), 0)
    side = np.where(np.abs(side) < 1e-4, np.float32(1e-4), side)
    return np.where(count >= 2, side, np.float32(0))
