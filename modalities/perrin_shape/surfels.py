r"""A shape as small flat pieces: in each cell of a grid, for each of six directions, one rectangle at most.

The cube from -1 to 1 has 32 cells a side, of side h. A point belongs to its cell and to the direction, of
:math:`\pm x, \pm y, \pm z`, that its normal is nearest to. What falls together makes one surfel: its area (in h^2), the
mean of its points (in h, from the middle of the cell), their deviations along the other two axes, by how much the
normal leans along these, and a colour. With direction d, its sign s, and axes u, v, the normal and the rectangle are

.. math::
    n \propto s\,e_d + l_u e_u + l_v e_v, \qquad
    p = c + a\,e_u + b\,e_v - s\,(l_u a + l_v b)\,e_d, \quad |a| \le \sqrt3\,\sigma_u,\ |b| \le \sqrt3\,\sigma_v

(a rectangle whose points have deviation sigma is 2 sqrt 3 sigma long). So any number of points can be drawn from it,
evenly, with normals and colours; edges of boxes and thin walls stay sharp because their sides are different surfels.

References:
    Pfister et al., Surfels: Surface Elements as Rendering Primitives (2000); Hoppe, DeRose, Duchamp, McDonald and
    Stuetzle, Surface reconstruction from unorganized points (1992), the plane through what is near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perrin_shape.cloud import Cloud

__all__ = ["SIDE", "VALUES", "Surfels", "drawn", "levelled", "surfels_of"]

SIDE = 32
"""Cells a side."""

STEP = 2 / SIDE
DIRECTIONS = 6
VALUES = 11
"""Numbers of a surfel: area, middle (3), deviations (2), lean (2), colour (3)."""

LEAST = 0.06
"""A surfel of less area is none."""

STEEPEST = 1.5
"""A normal leans at most so much."""

AROUND = 16
"""Surfels that a plane goes through, the nearest ones."""

REACH = 2.0
"""In cells: none of them is farther away."""

ALIKE = 0.5
"""The least that the cosine of the angle between their normals is."""


@dataclass(frozen=True)
class Surfels:
    """Attributes:
    index: (k,) cell * 6 + direction; a cell is (x * 32 + y) * 32 + z, a direction is +x, -x, +y, ...
    values: float32 (k, 11), see the module.
    """

    index: NDArray[np.int64]
    values: NDArray[np.float32]


def surfels_of(
    points: NDArray[np.float32], normals: NDArray[np.float32], colours: NDArray[np.uint8], area: float
) -> Surfels:
    """The surfels of oriented points within the unit ball, each of which stands for ``area``."""
    place = (points + 1) / STEP
    cell = np.clip(np.floor(place).astype(np.int64), 0, SIDE - 1)
    within = (place - cell - 0.5).astype(np.float32)
    axis = np.abs(normals).argmax(1)
    rows = np.arange(len(points))
    ahead = normals[rows, axis]
    key = ((cell[:, 0] * SIDE + cell[:, 1]) * SIDE + cell[:, 2]) * DIRECTIONS + axis * 2 + (ahead < 0)
    index, inverse = np.unique(key, return_inverse=True)
    count = np.bincount(inverse).astype(np.float32)

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([np.bincount(inverse, column) for column in x.T], 1).astype(np.float32) / count[:, None]

    axes = np.stack([(axis + 1) % 3, (axis + 2) % 3], 1)
    middle = mean(within)
    across = within[rows[:, None], axes]
    spread = np.sqrt(np.maximum(mean(across**2) - mean(across) ** 2, 0))
    lean = mean(normals[rows[:, None], axes]) / np.maximum(mean(np.abs(ahead)[:, None]), 0.1)
    values = np.concatenate(
        [
            count[:, None] * np.float32(area / STEP**2),
            middle,
            spread,
            lean.clip(-STEEPEST, STEEPEST),
            mean(colours.astype(np.float32)) / 127.5 - 1,
        ],
        1,
    )
    keep = values[:, 0] >= LEAST
    return Surfels(index[keep], values[keep].astype(np.float32))


def levelled(surfels: Surfels) -> Surfels:
    """The same places, each leaning as the plane through those around it whose normals are like its own.

    Where surfels are is known far better than how they lean. One with fewer than three such neighbours stays as it is.
    """
    values, many = surfels.values.copy(), len(surfels.index)
    if many < 4:
        return surfels
    centres = placed(surfels, np.arange(many), np.zeros((many, 2), np.float32))
    places, normals = centres.points.astype(np.float64) / STEP, centres.normals
    assert normals is not None
    apart, near = cKDTree(places).query(places, k=min(AROUND, many), distance_upper_bound=REACH)
    there = np.isfinite(apart)
    near = np.where(there, near, 0)
    alike = there & (np.einsum("nkd,nd->nk", normals[near], normals) > ALIKE)
    weight = np.where(alike, values[near, 0], 0).astype(np.float64)
    middle = np.einsum("nk,nkd->nd", weight, places[near]) / weight.sum(1, keepdims=True)
    around = places[near] - middle[:, None]
    _, axes = np.linalg.eigh(np.einsum("nk,nki,nkj->nij", weight, around, around))
    planes = axes[:, :, 0] * np.where(np.einsum("nd,nd->n", axes[:, :, 0], normals) < 0, -1, 1)[:, None]
    direction = surfels.index % DIRECTIONS
    axis, sign = direction // 2, 1 - 2 * (direction % 2)
    rows = np.arange(many)
    ahead = np.maximum(planes[rows, axis] * sign, 0.3)
    leans = np.stack([planes[rows, (axis + 1) % 3], planes[rows, (axis + 2) % 3]], 1) / ahead[:, None]
    moved = alike.sum(1) >= 4
    values[moved, 6:8] = leans[moved].clip(-STEEPEST, STEEPEST)
    return Surfels(surfels.index, values)


def drawn(surfels: Surfels, count: int, seed: int = 0) -> Cloud:
    """``count`` points of the surfels, spread evenly over their area.

    Raises:
        ValueError: there are no surfels.
    """
    if not len(surfels.index):
        raise ValueError("no surfels")
    random = np.random.default_rng(seed)
    area = np.maximum(surfels.values[:, 0].astype(np.float64), 1e-3)
    levels = (np.arange(count) + random.random()) / count
    chosen = np.minimum(np.searchsorted(np.cumsum(area / area.sum()), levels), len(area) - 1)
    first = np.searchsorted(chosen, chosen)
    number = np.arange(count) - first
    # The R2 sequence, begun anew at each surfel, at a place of its own: evener than chance.
    start = random.random((len(area), 2))
    at = ((start[chosen] + number[:, None] * [0.7548776662466927, 0.5698402909980532]) % 1 * 2 - 1) * 3**0.5
    return placed(surfels, chosen, at.astype(np.float32))


def placed(surfels: Surfels, chosen: NDArray[np.int64], at: NDArray[np.float32]) -> Cloud:
    """Points of the surfels ``chosen`` (n,), at places ``at`` (n, 2) in deviations."""
    values = surfels.values[chosen]
    cell, direction = np.divmod(surfels.index[chosen], DIRECTIONS)
    axis, sign = direction // 2, (1 - 2 * (direction % 2)).astype(np.float32)
    rows = np.arange(len(chosen))
    u, v = (axis + 1) % 3, (axis + 2) % 3
    offset = at * values[:, 4:6]
    points = values[:, 1:4].copy()
    points[rows, u] += offset[:, 0]
    points[rows, v] += offset[:, 1]
    points[rows, axis] -= sign * (offset * values[:, 6:8]).sum(1)
    corner = np.stack([cell // SIDE**2, cell // SIDE % SIDE, cell % SIDE], 1)
    points = (points + corner + 0.5) * STEP - 1
    normals = np.zeros((len(chosen), 3), np.float32)
    normals[rows, axis], normals[rows, u], normals[rows, v] = sign, values[:, 6], values[:, 7]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = ((values[:, 8:] + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    return Cloud(points.astype(np.float32), normals, colours)
