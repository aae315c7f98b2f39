r"""How bright a surface is under an even sky: what share of the sky each place sees, and the shade it casts below.

.. math:: A(x) = \frac{\sum_d \max(0, n \cdot d)\, w_d\, V_d(x)}{\sum_d \max(0, n \cdot d)\, w_d}

with directions d spread evenly, w their brightness, and V whether nothing lies between x and the sky, read from a
depth map of the surface's points along d.

References:
    Landis, Production-Ready Global Illumination, SIGGRAPH course 16 (2002), on ambient occlusion; Williams, Casting
    curved shadows on curved surfaces (1978), on depth maps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, minimum_filter

__all__ = ["directions", "shade", "sky", "visible"]

Floats = NDArray[np.float32]

CELLS = 112
"""Along a side of a depth map."""

GROUND = 128
"""Along a side of the map of shade on the ground."""

FAINT = 0.08
"""Shade that is not drawn, so that a shape far from the edge of a picture leaves the edge white."""

REACH = 2.4
"""Radii of the shape from its middle to the edge of that map."""


def directions(count: int) -> NDArray[np.float64]:
    """(count, 3) of length one, spread evenly by the golden angle, from above to below."""
    k = np.arange(count) + 0.5
    y = 1 - 2 * k / count
    turn = k * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - y * y)
    return np.stack([flat * np.cos(turn), y, flat * np.sin(turn)], 1)


def visible(surface: Floats, places: Floats, towards: NDArray[np.float64], radius: float, bias: float) -> Floats:
    """How much of a light in direction ``towards`` reaches ``places`` (n, 3): (n,) from 0 to 1.

    Args:
        surface: points (m, 3) that stand in the way.
        places: (n, 3).
        towards: (3,) of length one.
        radius: of a ball around the origin that holds all of them.
        bias: how far behind the front a place may be and still count as lit.
    """
    across, up = _frame(towards)
    basis = np.stack([across, up, towards], 1).astype(np.float32)
    cells = np.full((CELLS + 2) ** 2, -np.inf, np.float32)
    u, v, near = (surface @ basis).T
    scale = np.float32((CELLS - 1) / (2 * radius))
    at = (
        (np.rint((v + radius) * scale).astype(np.int64) + 1) * (CELLS + 2)
        + np.rint((u + radius) * scale).astype(int)
        + 1
    )
    np.maximum.at(cells, at, near)
    front = maximum_filter(cells.reshape(CELLS + 2, CELLS + 2), 3)
    front = minimum_filter(front, 3)
    u, v, near = (places @ basis).T
    behind = front[np.rint((v + radius) * scale).astype(int) + 1, np.rint((u + radius) * scale).astype(int) + 1] - near
    return np.asarray(1 - ((behind - bias) / (0.7 * bias)).clip(0, 1), np.float32)


def sky(surface: Floats, places: Floats, normals: Floats, radius: float, count: int = 48) -> Floats:
    """The light of an even sky, dimmer from below, at ``places`` with ``normals``: (n,) from 0 to 1."""
    light = np.zeros(len(places), np.float32)
    most = np.full(len(places), 1e-6, np.float32)
    for towards in directions(count):
        bright = np.float32(0.35 + 0.65 * max(0.0, towards[1]) ** 0.5) if towards[1] > -0.1 else np.float32(0.3)
        facing = (normals @ towards.astype(np.float32)).clip(0)
        most += facing
        light += facing * bright * visible(surface, places, towards, radius, 0.045 * radius)
    return np.asarray(light / most, np.float32)


def shade(surface: Floats, ground: float, radius: float, count: int = 40) -> Floats:
    """How much of the sky the shape hides from the ground at height ``ground``: (`GROUND`, `GROUND`), z by x."""
    total = np.zeros((GROUND, GROUND), np.float32)
    weights = 0.0
    above = surface[:, 1] - np.float32(ground)
    for towards in directions(2 * count)[:count]:
        if towards[1] < 0.4:
            continue
        flat = surface[:, [0, 2]] - above[:, None] * (towards[[0, 2]] / towards[1]).astype(np.float32)
        at = np.rint((flat / (REACH * radius) + 1) / 2 * (GROUND - 1)).astype(np.int64)
        inside = ((at >= 0) & (at < GROUND)).all(1)
        mask = np.zeros((GROUND, GROUND), np.float32)
        mask[at[inside, 1], at[inside, 0]] = 1
        total += towards[1] * maximum_filter(mask, 3)
        weights += towards[1]
    soft = gaussian_filter(total / weights, 2.0)
    return np.asarray((1.08 * (soft - FAINT)).clip(0), np.float32)


def looked_up(shades: Floats, x: Floats, z: Floats, radius: float) -> Floats:
    """The map of `shade` at places of the ground."""
    scale = (GROUND - 1) / 2
    at = np.stack([(z / (REACH * radius) + 1) * scale, (x / (REACH * radius) + 1) * scale])
    return np.asarray(map_coordinates(shades, at, order=1, mode="constant", cval=0.0), np.float32)


def _frame(towards: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    other = np.array([0.0, 1.0, 0.0]) if abs(towards[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    across = np.cross(other, towards)
    across /= np.linalg.norm(across)
    return across, np.cross(towards, across)
