"""Surfaces of clouds: closed, where the points are, and thin where the shape is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perrin.errors import Degenerate
from perrin_shape.cloud import Cloud
from perrin_shape.mesh import Mesh, closed, sampled, vertex_normals
from perrin_shape.normals import outward_normals
from perrin_shape.surface import apart, reconstruct


def cloud_of(mesh: Any, count: int = 2048, seed: int = 0) -> Cloud:
    vertices, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
    points, face, _ = sampled(vertices, faces, count, seed)
    return Cloud(points, mesh.face_normals[face].astype(np.float32))


def box(*sides: float, at: tuple[float, float, float] = (0, 0, 0)) -> Any:
    return trimesh.creation.box(sides).apply_translation(at)


def table() -> Any:
    """A top of 0.05 and four legs of 0.08 by 0.08."""
    legs = [box(0.08, 0.9, 0.08, at=(x, -0.475, z)) for x in (-0.5, 0.5) for z in (-0.3, 0.3)]
    return trimesh.util.concatenate([box(1.2, 0.05, 0.8), *legs])


SHAPES = {
    "ball": lambda: trimesh.creation.icosphere(radius=0.8),
    "torus": lambda: trimesh.creation.torus(0.7, 0.2),
    "plate": lambda: box(1.4, 0.04, 1.0),
    "rod": lambda: box(0.09, 1.8, 0.09),
    "table": table,
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_surface_is_closed_and_where_the_points_are(name: str) -> None:
    solid = SHAPES[name]()
    mesh = reconstruct(cloud_of(solid))
    assert mesh.watertight
    assert mesh.how == "poisson"
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert made.is_watertight
    assert made.is_winding_consistent
    assert made.volume > 0
    there = cloud_of(solid, 20_000, 1).points
    back, _ = cKDTree(there).query(sampled(mesh.vertices, mesh.faces, 20_000)[0])
    towards, _ = cKDTree(sampled(mesh.vertices, mesh.faces, 20_000)[0]).query(there)
    assert back.mean() < 0.015
    assert towards.mean() < 0.015
    assert max(towards.max(), np.quantile(back, 0.999)) < 0.1  # no leg is lost, nothing sticks out


def test_volume_holes_and_normals_are_those_of_the_solid() -> None:
    ball = reconstruct(cloud_of(SHAPES["ball"]()))
    volume = trimesh.Trimesh(ball.vertices, ball.faces, process=False).volume
    assert volume == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.03)
    assert ball.normals is not None
    outward = ball.vertices / np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    assert (ball.normals * outward).sum(1).mean() > 0.98
    torus = reconstruct(cloud_of(SHAPES["torus"]()))
    assert trimesh.Trimesh(torus.vertices, torus.faces, process=False).euler_number == 0  # one hole


def test_it_is_no_convex_hull() -> None:
    mesh = reconstruct(cloud_of(table()))
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert made.volume < 0.2 * made.convex_hull.volume


def test_noise_of_a_model_is_borne() -> None:
    generator = np.random.default_rng(0)
    cloud = cloud_of(table())
    assert cloud.normals is not None
    normals = cloud.normals + 0.15 * generator.standard_normal(cloud.normals.shape)
    moved = cloud.points + 0.012 * generator.standard_normal(cloud.points.shape)
    noisy = Cloud(moved.astype(np.float32), normals.astype(np.float32))
    mesh = reconstruct(noisy)
    assert mesh.watertight
    assert apart(noisy, mesh) < 2 * apart(cloud, reconstruct(cloud)) + 2e-3


@pytest.mark.parametrize("how", ["poisson", "signed-distance"])
def test_each_way_alone_is_closed(how: Any) -> None:
    cloud = cloud_of(SHAPES["torus"]())
    mesh = reconstruct(cloud, how)
    assert (mesh.how, mesh.watertight) == (how, True)
    assert apart(cloud, mesh) < 3e-3
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).euler_number == 0


def test_an_open_sheet_becomes_a_thin_solid_by_the_other_way() -> None:
    generator = np.random.default_rng(0)
    flat = generator.uniform(-0.7, 0.7, (2048, 2))
    points = np.stack([flat[:, 0], 0.2 * np.sin(3 * flat[:, 0]), flat[:, 1]], 1).astype(np.float32)
    slope = np.stack([-0.6 * np.cos(3 * flat[:, 0]), np.ones(2048), np.zeros(2048)], 1)
    sheet = Cloud(points, (slope / np.linalg.norm(slope, axis=1, keepdims=True)).astype(np.float32))
    mesh = reconstruct(sheet)
    assert mesh.watertight
    assert mesh.how == "signed-distance"
    assert apart(sheet, mesh) < 4e-3


def test_a_cloud_without_normals_gets_outward_ones() -> None:
    for name, least in (("ball", 1.0), ("torus", 0.99), ("rod", 0.95)):
        cloud = cloud_of(SHAPES[name]())
        assert cloud.normals is not None
        right = (outward_normals(cloud.points) * cloud.normals).sum(1) > 0
        assert right.mean() >= least, name
    mesh = reconstruct(Cloud(cloud_of(SHAPES["torus"]()).points))
    assert mesh.watertight
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).euler_number == 0


def test_order_of_the_points_does_not_matter_and_turning_turns_the_surface() -> None:
    cloud = cloud_of(table())
    assert cloud.normals is not None
    mesh = reconstruct(cloud)
    order = np.random.default_rng(0).permutation(len(cloud))
    other = reconstruct(Cloud(cloud.points[order], cloud.normals[order]))
    assert _distance(mesh, other) < 2e-3
    quarter = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)  # the grid turns with it
    turned = reconstruct(Cloud(cloud.points @ quarter.T, cloud.normals @ quarter.T))
    assert _distance(turned, _moved(mesh, quarter)) < 6e-3
    angle = np.radians(31)
    slant = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
    slanted = reconstruct(Cloud(cloud.points @ slant.T, cloud.normals @ slant.T))
    assert slanted.watertight
    assert _distance(slanted, _moved(mesh, slant)) < 0.02


def _moved(mesh: Mesh, matrix: NDArray[np.float32]) -> Mesh:
    return Mesh(mesh.vertices @ matrix.T, mesh.faces)


def _distance(a: Mesh, b: Mesh) -> float:
    """The mean distance of corners to the other's."""
    return float(cKDTree(a.vertices).query(b.vertices)[0].mean() + cKDTree(b.vertices).query(a.vertices)[0].mean())


def test_colours_are_those_of_the_points_nearby() -> None:
    cloud = cloud_of(SHAPES["ball"]())
    red = np.where(cloud.points[:, :1] > 0, np.uint8([[230, 20, 20]]), np.uint8([[20, 20, 230]]))
    mesh = reconstruct(Cloud(cloud.points, cloud.normals, red))
    assert mesh.colours is not None
    assert (mesh.colours[mesh.vertices[:, 0] > 0.1] == [230, 20, 20]).all()
    assert (mesh.colours[mesh.vertices[:, 0] < -0.1] == [20, 20, 230]).all()


def test_closed_means_every_edge_once_in_each_direction() -> None:
    solid = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
    assert closed(solid)
    assert not closed(solid[:3])  # open
    assert not closed(np.concatenate([solid, solid]))  # each edge four times
    assert not closed(np.concatenate([solid[:3], solid[3:, ::-1]]))  # one wound the other way
    assert not closed(np.zeros((0, 3), np.int32))
    assert not closed(np.array([[0, 0, 1], [1, 0, 0]], np.int32))


def test_what_has_no_surface_is_degenerate() -> None:
    for points in (np.zeros((0, 3)), np.zeros((3, 3)), np.zeros((500, 3)), np.full((9, 3), np.nan)):
        with pytest.raises(Degenerate):
            reconstruct(Cloud(points.astype(np.float32)))


def test_samples_are_even_and_the_same_again() -> None:
    two = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 1], [0, 3, 1]], np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    points, face, weights = sampled(two, faces, 1000)
    assert abs(int((face == 0).sum()) - 100) <= 1  # areas are 1 to 9
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(points, sampled(two, faces, 1000)[0])
    with pytest.raises(ValueError, match="without area"):
        sampled(np.zeros((3, 3), np.float32), faces[:1], 5)
    np.testing.assert_allclose(vertex_normals(two, faces)[:, 2], 1)
