"""A point cloud: what the model makes, what the surface is made of, what files hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perrin.errors import Degenerate

__all__ = ["Cloud", "check"]

THINNEST = 0.02
"""Radii: a cloud whose middle nine tenths are within it of a single place has collapsed."""


@dataclass(frozen=True)
class Cloud:
    """Points of a surface, right-handed, y up, the front towards +z (as in glTF).

    Attributes:
        points: float32 (n, 3). Shapes of the model are centred, the farthest point at distance one.
        normals: float32 (n, 3), of length one, outward; or None.
        colours: uint8 (n, 3), sRGB; or None.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32] | None = None
    colours: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.points)


def check(cloud: Cloud) -> None:
    """Refuse a cloud that is no shape.

    Raises:
        Degenerate: no points, numbers that are not finite, or nearly all points at one place or on one line.
    """
    points = cloud.points
    if not len(points):
        raise Degenerate("the shape has no points; try another seed, or less guidance")
    if not np.isfinite(points).all():
        raise Degenerate("the shape has points that are not finite; try another seed, or less guidance")
    middle = np.median(points, axis=0)
    away = np.linalg.norm(points - middle, axis=1)
    if np.quantile(away, 0.9) <= THINNEST * max(1.0, float(away.max())) or away.max() < 1e-6:
        raise Degenerate("the points have collapsed to one place; try another seed, or less guidance")
    spread = np.linalg.svd((points - points.mean(0)).astype(np.float64), compute_uv=False)
    if spread[1] < 1e-3 * spread[0]:
        raise Degenerate("the points have collapsed to a line; try another seed, or less guidance")
    if len(np.unique(np.round(points / max(float(away.max()), 1e-9), 3), axis=0)) < 0.1 * len(points):
        raise Degenerate("the points have collapsed to a few places; try another seed, or less guidance")
