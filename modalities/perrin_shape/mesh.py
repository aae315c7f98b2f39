"""A mesh: the surface of a solid as triangles, and whether it is closed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mesh", "closed", "sampled", "vertex_normals"]


@dataclass(frozen=True)
class Mesh:
    """Triangles, right-handed, y up, counter-clockwise as seen from outside (as in glTF).

    Attributes:
        vertices: float32 (v, 3).
        faces: int32 (f, 3), numbers of vertices.
        normals: float32 (v, 3), of length one, outward; or None.
        colours: uint8 (v, 3), sRGB; or None.
        how: what made the surface: poisson, signed-distance, or given.
        watertight: every edge is of two triangles that go along it in opposite directions.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32] | None = None
    colours: NDArray[np.uint8] | None = None
    how: str = "given"
    watertight: bool = False

    def __len__(self) -> int:
        return len(self.faces)


def closed(faces: NDArray[np.int32]) -> bool:
    """Whether every edge of triangles (f, 3) is walked once in each direction: the surface bounds a solid."""
    if not len(faces):
        return False
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    size = int(edges.max()) + 1
    along, back = edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0]
    along.sort()
    back.sort()
    return bool((edges[:, 0] != edges[:, 1]).all() and (np.diff(along) > 0).all() and np.array_equal(along, back))


def vertex_normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """(v, 3) of length one: the mean of the triangles around each vertex by their areas; zero where there is none."""
    corners = vertices[faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.stack(
        [np.bincount(faces.ravel(), across[:, k].repeat(3), minlength=len(vertices)) for k in range(3)], 1
    )
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(summed / np.maximum(lengths, 1e-30), np.float32)


def sampled(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], count: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Points spread over triangles evenly by area, the same for the same seed.

    One point falls in each of ``count`` equal parts of the summed area, so that no triangle is much over- or
    under-represented.

    Returns:
        points (count, 3), the triangle of each (count,), and its weights of the three corners (count, 3).

    Raises:
        ValueError: the triangles have no area.
    """
    corners = vertices[faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = float(areas.sum())
    if not np.isfinite(total) or total <= 0:
        raise ValueError("triangles without area")
    generator = np.random.default_rng(seed)
    places = (np.arange(count) + generator.random(count)) / count * total
    chosen = np.minimum(np.searchsorted(np.cumsum(areas), places, side="right"), len(faces) - 1)
    a, b = generator.random((2, count))
    root = np.sqrt(a)
    weights = np.stack([1 - root, root * (1 - b), root * b], 1)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    return points.astype(np.float32), chosen, weights.astype(np.float32)
