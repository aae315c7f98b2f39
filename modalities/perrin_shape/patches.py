"""Each point of a cloud stands for a patch of the surface: the part of it that is nearer to it than to others.

A patch begins as a disc across the normal. It is bent onto the surface by the points around that face about the same
way: a moving least-squares projection, which also evens out noise. What is nearer to another point is cut off,
except to points that face the other way, since those are of the other side of a thin plate.

References:
    Pfister, Zwicker, van Baar and Gross, Surfels (2000); Levin, Mesh-independent surface interpolation (2003).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["Patches", "patches_of"]

Floats = NDArray[np.float32]

NEIGHBOURS = 18
DISC = 24
"""Places of a disc, on a spiral of Fibonacci's kind."""

NARROW, WIDE = 1.2, 2.0
"""Spacings from a disc's middle to its edge: near enough to the points to keep edges sharp; or without gaps."""

LEAN = 0.5
"""Spacings, for a disc as wide: how far the points around a place may be from it on the average."""

OPPOSITE = -0.3
"""Cosine below which two points face opposite ways."""


class Patches(NamedTuple):
    """Many small oriented pieces of a surface.

    Attributes:
        points: (m, 3).
        normals: (m, 3) of length one.
        areas: (m,).
        spacing: of the cloud's points: the median distance to the nearest that faces about the same way.
    """

    points: Floats
    normals: Floats
    areas: Floats
    spacing: float


def patches_of(points: Floats, normals: Floats, width: float = NARROW, disc: int = DISC) -> Patches:
    """The patches of points (n, 3) with normals (n, 3).

    Args:
        points, normals: the cloud's.
        width: spacings from a disc's middle to its edge.
        disc: places of a disc.
    """
    places = points.astype(np.float32)  # half the memory, and it is memory that takes the time
    facing = (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    k = min(NEIGHBOURS, len(places) - 1)
    away, near = cKDTree(places).query(places, k=k + 1)
    away, near = away[:, 1:], near[:, 1:]
    alike = np.einsum("nd,nkd->nk", facing, facing[near])
    # The distance to the fourth that is of the same side is about the spacing of an even cloud, times 1.1.
    same = np.where(alike > 0.5, away, np.inf)
    fourth = np.sort(same, 1)[:, min(3, k - 1)]
    usual = float(np.median(np.where(np.isfinite(fourth), fourth, away[:, min(3, k - 1)]))) or 1e-6
    reach = width * np.clip(np.where(np.isfinite(fourth), fourth, usual), 0.35 * usual, 1.6 * usual) / 1.35
    scale = reach / width

    radius = np.sqrt((np.arange(disc) + 0.5) / disc)
    turn = np.arange(disc) * np.pi * (3 - np.sqrt(5))
    across, up = (axis.astype(np.float32) for axis in _frames(facing))
    reach, scale = reach.astype(np.float32), scale.astype(np.float32)
    radius, turn = radius.astype(np.float32), turn.astype(np.float32)
    u = reach[:, None] * radius * np.cos(turn)
    v = reach[:, None] * radius * np.sin(turn)
    spots = places[:, None] + u[..., None] * across[:, None] + v[..., None] * up[:, None]
    spots = np.concatenate([places[:, None], spots[:, 1:]], 1)

    turned = np.repeat(facing[:, None], disc, 1)
    sides = np.where(alike > 0.3, np.float32(1), np.float32(0))
    for _ in range(2):
        to = spots[:, :, None] - places[near][:, None]
        square = np.einsum("nmkd,nmkd->nmk", to, to)
        weights = np.exp(-square / (0.66 * scale[:, None, None]) ** 2) * (sides * alike.clip(0))[:, None]
        own = np.exp(-((spots - places[:, None]) ** 2).sum(2) / (0.66 * scale[:, None]) ** 2) + 1e-9
        height = np.einsum("nmkd,nkd->nmk", to, facing[near])
        mine = np.einsum("nmd,nd->nm", spots - places[:, None], facing)
        total = weights.sum(2) + own
        turned = np.einsum("nmk,nkd->nmd", weights, facing[near]) + own[..., None] * facing[:, None]
        turned /= np.maximum(np.linalg.norm(turned, axis=2, keepdims=True), 1e-9)
        spots = spots - ((weights * height).sum(2) + own * mine)[..., None] / total[..., None] * turned

    # Where the points around lie all to one side, the patch would reach beyond the surface's edge.
    beside = np.einsum("nmk,nkd->nmd", weights, places[near]) + own[..., None] * places[:, None]
    lean = np.linalg.norm(beside / total[..., None] - spots, axis=2) / scale[:, None]

    to = spots[:, :, None] - places[near][:, None]
    square = np.where((alike > OPPOSITE)[:, None], np.einsum("nmkd,nmkd->nmk", to, to), np.inf)
    nearest = square.min(2, initial=np.inf)
    own = ((spots - places[:, None]) ** 2).sum(2)
    keep = (own <= nearest * 1.02) & (lean < LEAN * (0.55 + 0.45 * width))
    keep[:, 0] = True
    areas = np.repeat(np.float32(np.pi) * reach[:, None] ** 2 / disc, disc, 1)
    return Patches(
        spots[keep].astype(np.float32), turned[keep].astype(np.float32), areas[keep].astype(np.float32), usual / 1.1
    )


def _frames(normals: Floats) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Two directions across each of (n, 3)."""
    other = np.eye(3)[np.abs(normals).argmin(1)]
    across = np.cross(other, normals)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    return across, np.cross(normals, across)
