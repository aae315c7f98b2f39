r"""From points to a closed surface, in two ways; both are a level of a field on a grid, and so closed.

``poisson``: the normals, spread over the grid, are the gradient of what is inside (1) and outside (0), up to its
smoothness. That function solves a Poisson equation, whose solution on a periodic grid is a division of spectra:

.. math:: \hat\chi(u) = \frac{-\,\mathrm{i}\,2\pi\,u \cdot \hat{v}(u)}{|2\pi u|^2}\;e^{-2\pi^2\sigma^2|u|^2}

with v the field of inward normals. Its level is not the same everywhere: a plate thinner than the smoothing never
reaches 1. So the level is what the function is at the points nearby, as if screened by them.

``signed-distance``: what is nearer to the points than their spacing, and all that this encloses, less the spacing, but
never less than a thin skin around the points. It needs no normals to be right, and turns what is open into thin solids.

Between points both see the same surface: each point stands for a patch of it, which bends with the points around.

References:
    Kazhdan, Bolitho and Hoppe, Poisson surface reconstruction (2006); Kazhdan and Hoppe, Screened Poisson surface
    reconstruction (2013); Peng et al., Shape As Points (2021), equations 3 to 6; Lewiner et al., Efficient
    implementation of marching cubes' cases with topological guarantees (2003).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from perrin.errors import Degenerate, NotInstalled
from perrin_shape.cloud import Cloud
from perrin_shape.mesh import Mesh, closed, sampled, vertex_normals
from perrin_shape.normals import outward_normals
from perrin_shape.patches import WIDE, Patches, patches_of

__all__ = ["apart", "reconstruct"]

Floats = NDArray[np.float32]
How = Literal["auto", "poisson", "signed-distance"]

CELLS = 112
"""Along the longest side of a cloud, at the most."""

LEAST_CELLS = 48
MARGIN = 7
"""Cells around the cloud."""

FINENESS = 3.6
"""Cells to a spacing of the points."""

SIGMA = 0.5
"""Cells: the smoothing of the Poisson solution, on top of the grid's own."""

LEAST_LEVEL, MOST_LEVEL = 0.15, 0.6
"""What the level may be: 0.5 where the solid is thick, less where it is thinner than the smoothing."""

AROUND = 0.6
"""Spacings over which the level is that of the points nearby."""

CLOSING, SKIN, BLUR = 1.0, 1.25, 0.8
"""Of the signed distance: spacings across which it closes holes; cells around the points that are always solid; cells
of the last smoothing."""

STRAY = 0.85
"""Spacings of the points that a surface may lie away from them, at the root of the mean square, before the other way is
tried."""

LEAST_PART = 0.02
"""Parts of the surface with less of its area that no point is at are left out."""


class _Grid(NamedTuple):
    """A box of cells: a place x is at (x - low) / cell."""

    low: NDArray[np.float64]
    cell: float
    shape: tuple[int, int, int]


def reconstruct(cloud: Cloud, how: How = "auto", cells: int = CELLS) -> Mesh:
    """The closed surface of a cloud's solid, with its colours, facing outward.

    Args:
        cloud: at least four points; its normals, where it has them, say what is outside.
        how: auto takes poisson, and signed-distance where that is not closed or strays from the cloud.
        cells: of the grid along the longest side, at the most.

    Returns:
        A mesh that says which way was taken and whether it is watertight.

    Raises:
        Degenerate: the cloud has no extent, or too few points, for a surface.
    """
    if len(cloud) < 4 or not np.isfinite(cloud.points).all():
        raise Degenerate(f"a cloud of {len(cloud)} points has no surface; wanted at least 4, all finite")
    extent = float(np.ptp(cloud.points, axis=0).max())
    if extent < 1e-6:
        raise Degenerate("all points of the cloud are at one place: there is no surface")
    normals = cloud.normals
    if normals is None or not np.isfinite(normals).all() or (np.abs(normals).sum(1) < 1e-6).any():
        normals = outward_normals(cloud.points)
    patches = patches_of(cloud.points, normals)
    grid = _grid(cloud.points, patches.spacing, cells)
    tried: list[tuple[float, Mesh]] = []
    for name in ("poisson", "signed-distance") if how == "auto" else (how,):
        if name == "poisson":
            field = _poisson(patches, grid)
        else:
            field = _distance(patches_of(cloud.points, normals, WIDE, 44), grid)
        mesh = _level(field, grid, cloud, name, patches.spacing)
        if mesh is None:
            continue
        strays = apart(cloud, mesh) ** 0.5 / patches.spacing
        if mesh.watertight and strays < STRAY:
            return mesh
        tried.append((strays + 100 * (not mesh.watertight), mesh))
    if not tried:
        raise Degenerate("no surface was found: the points enclose nothing")
    return min(tried, key=lambda one: one[0])[1]


def apart(cloud: Cloud, mesh: Mesh, count: int = 0) -> float:
    """Chamfer distance of a cloud and a mesh: the sum of the mean squared distances of each to the other.

    Args:
        cloud: points.
        mesh: sampled evenly by area.
        count: samples of the mesh; by default as many as the cloud has, but at least 2,048.
    """
    there = sampled(mesh.vertices, mesh.faces, count or max(2048, len(cloud)))[0]
    towards, _ = cKDTree(there).query(cloud.points)
    back, _ = cKDTree(cloud.points).query(there)
    return float((towards**2).mean() + (back**2).mean())


def _grid(points: Floats, spacing: float, cells: int) -> _Grid:
    low, high = points.min(0).astype(np.float64), points.max(0).astype(np.float64)
    longest = float((high - low).max())
    cell = longest / float(np.clip(FINENESS * longest / spacing, LEAST_CELLS, cells))
    sides = [scipy.fft.next_fast_len(int(np.ceil(s / cell)) + 2 * MARGIN + 1, real=True) for s in high - low]
    middle = (low + high) / 2
    return _Grid(middle - cell * (np.array(sides) - 1) / 2, cell, (sides[0], sides[1], sides[2]))


# --- the two fields, positive inside ----------------------------------------------------------------------------------


def _poisson(patches: Patches, grid: _Grid) -> Floats:
    at = ((patches.points - grid.low) / grid.cell).astype(np.float32)
    weights = (patches.areas / grid.cell**2).astype(np.float32)
    spectra = []
    for axis in range(3):
        inward = _spread(at, -weights * patches.normals[:, axis], grid.shape)
        spectra.append(scipy.fft.rfftn(inward))
    u = [2 * np.pi * f.astype(np.float32) for f in (
        scipy.fft.fftfreq(grid.shape[0])[:, None, None], scipy.fft.fftfreq(grid.shape[1])[None, :, None],
        scipy.fft.rfftfreq(grid.shape[2])[None, None, :],
    )]  # fmt: skip
    square = u[0] ** 2 + u[1] ** 2 + u[2] ** 2
    smooth = np.exp(-0.5 * np.float32(SIGMA**2) * square)
    square[0, 0, 0] = 1
    spectrum = -1j * sum(a * s for a, s in zip(u, spectra, strict=True)) / square * smooth
    chi = scipy.fft.irfftn(spectrum.astype(np.complex64), grid.shape)
    border = np.concatenate([chi[0].ravel(), chi[-1].ravel(), chi[:, 0].ravel(), chi[:, -1].ravel()])
    chi -= np.median(border)
    at_points = ndimage.map_coordinates(chi, at.T, order=1)
    usual = float(np.median(at_points))
    wide = max(1.5, AROUND * patches.spacing / grid.cell)
    counts = ndimage.gaussian_filter(_spread(at, weights, grid.shape), wide, truncate=3.0)
    levels = ndimage.gaussian_filter(_spread(at, weights * at_points, grid.shape), wide, truncate=3.0)
    trust = np.float32(0.02 * counts.max())
    level = (levels + trust * usual) / (counts + trust)
    return np.asarray(chi - level.clip(LEAST_LEVEL, MOST_LEVEL), np.float32)


def _distance(patches: Patches, grid: _Grid) -> Floats:
    """In cells."""
    reach = max(1.6, CLOSING * patches.spacing / grid.cell)
    at = (patches.points - grid.low) / grid.cell
    near = np.zeros(grid.shape, bool)
    near[tuple(np.rint(at).astype(int).T)] = True
    rough = ndimage.distance_transform_edt(~near)
    band = np.flatnonzero(rough.ravel() < reach + 3)
    exact = rough.astype(np.float32).ravel()
    places = np.stack(np.unravel_index(band, grid.shape), 1)
    exact[band] = cKDTree(at).query(places, distance_upper_bound=reach + 5)[0].clip(0, reach + 5)
    away = exact.reshape(grid.shape)
    parts, _ = ndimage.label(away >= reach)
    outside = parts == parts[0, 0, 0]
    depth = ndimage.distance_transform_edt(~outside).astype(np.float32) - np.float32(0.5)
    # Half a cell of the grid's own coarseness is taken out again where the exact distance is known.
    shell = np.abs(away - reach) < 1.5
    depth = np.where(shell & ~outside & (away < reach), np.maximum(depth, reach - away), depth)
    return np.asarray(
        ndimage.gaussian_filter(np.maximum(depth - reach, np.float32(SKIN) - away).clip(-4, 4), BLUR), np.float32
    )


def _spread(at: Floats, values: Floats, shape: tuple[int, int, int]) -> Floats:
    """``values`` (m,) at places (m, 3) in cells, shared by the eight grid points around each."""
    low = np.floor(at).astype(np.int64)
    part = at - low
    total = np.zeros(int(np.prod(shape)))
    for corner in range(8):
        step = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        weight = np.where(step, part, 1 - part).prod(1)
        place = (low + step) % np.array(shape)
        total += np.bincount(np.ravel_multi_index(tuple(place.T), shape), values * weight, minlength=len(total))
    return total.reshape(shape).astype(np.float32)


# --- the surface of a field -------------------------------------------------------------------------------------------


def _level(field: Floats, grid: _Grid, cloud: Cloud, how: str, spacing: float) -> Mesh | None:
    """Where ``field`` is zero; None where it is nowhere."""
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise NotInstalled("surfaces of clouds", "run") from None
    for axis in range(3):  # closed by construction: outside on every border
        border: Any = [slice(None)] * 3
        border[axis] = [0, -1]
        field[tuple(border)] = np.minimum(field[tuple(border)], -1e-3)
    field[np.abs(field) < 1e-6] = 1e-6  # no vertex at a grid point, and so no triangle without area
    if not (field > 0).any():
        return None
    vertices, faces, *_ = marching_cubes(field, 0.0, allow_degenerate=False)
    vertices = (vertices * grid.cell + grid.low).astype(np.float32)
    vertices, faces = _kept(vertices, faces.astype(np.int32), cloud, spacing)
    if not len(faces):
        return None
    if _volume(vertices, faces) < 0:
        faces = faces[:, ::-1].copy()
    vertices = _eased(vertices, faces)
    mesh = Mesh(vertices, faces, vertex_normals(vertices, faces), _colours(cloud, vertices), how)
    return replace(mesh, watertight=_watertight(mesh))


def _volume(vertices: Floats, faces: NDArray[np.int32]) -> float:
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return float(np.einsum("nd,nd->", a, np.cross(b, c)) / 6)


def _watertight(mesh: Mesh) -> bool:
    import trimesh

    other = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return closed(mesh.faces) and bool(other.is_watertight and other.is_winding_consistent)


def _kept(vertices: Floats, faces: NDArray[np.int32], cloud: Cloud, spacing: float) -> tuple[Floats, NDArray[np.int32]]:
    """Without the bubbles: parts that hardly a point is near."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    links = coo_matrix((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(len(vertices),) * 2)
    count, label = connected_components(links, directed=False)
    if count > 1:
        _, nearest = cKDTree(vertices).query(cloud.points)
        away, _ = cKDTree(cloud.points).query(vertices)
        points = np.bincount(label[nearest], minlength=count)
        sizes = np.bincount(label, minlength=count)
        far = np.bincount(label, away, minlength=count) / sizes > 1.5 * spacing
        wanted = ~far & (points >= 1) | (sizes >= LEAST_PART * len(vertices)) & (points >= 1)
        if not wanted.any():
            wanted[np.argmax(sizes)] = True
        faces = faces[wanted[label[faces[:, 0]]]]
        used = np.unique(faces)
        back = np.zeros(len(vertices), np.int32)
        back[used] = np.arange(len(used))
        vertices, faces = vertices[used], back[faces]
    return vertices, faces


def _eased(vertices: Floats, faces: NDArray[np.int32], rounds: int = 4) -> Floats:
    """A little smoother without shrinking: the steps of the grid go (Taubin, 1995)."""
    from scipy.sparse import coo_matrix

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = coo_matrix((np.ones(len(edges), np.float32), tuple(edges.T)), shape=(len(vertices),) * 2).tocsr()
    degree = np.maximum(np.asarray(links.sum(1)), 1).astype(np.float32)
    made = vertices
    for _ in range(rounds):
        for step in (0.5, -0.53):
            made = made + np.float32(step) * (links @ made / degree - made)
    return np.asarray(made, np.float32)


def _colours(cloud: Cloud, vertices: Floats) -> NDArray[np.uint8] | None:
    """Of the three nearest points, by the inverse of the squared distance."""
    if cloud.colours is None:
        return None
    away, near = cKDTree(cloud.points).query(vertices, k=min(3, len(cloud)))
    away, near = away.reshape(len(vertices), -1), near.reshape(len(vertices), -1)
    weights = 1 / (away**2 + 1e-8)
    weights /= weights.sum(1, keepdims=True)
    mixed = np.einsum("nk,nkc->nc", weights, cloud.colours[near].astype(np.float64))
    return np.asarray(mixed.round().clip(0, 255), np.uint8)
