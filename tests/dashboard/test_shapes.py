"""Shapes of files, as the dashboard reads and draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perrin_dashboard.shapes import MOST_FACES, MOST_POINTS, figure, read_shape

TRIANGLE = b"""ply
format ascii 1.0
comment perrin {}
element vertex 3
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 1
property list uchar int vertex_indices
end_header
0 0 0 255 0 0
1 0 0 0 255 0
0 1 0 0 0 255
3 0 1 2
"""
POINTS = TRIANGLE.replace(b"element face 1\nproperty list uchar int vertex_indices\n", b"").replace(b"3 0 1 2\n", b"")


def test_triangles_are_drawn_with_their_colours() -> None:
    shape = read_shape(TRIANGLE, "model/ply")
    assert shape is not None
    assert shape.said == "1 triangles, 3 corners"
    drawn: Any = figure(shape)
    (mesh,) = drawn.data
    assert mesh.type == "mesh3d"
    assert (list(mesh.i), list(mesh.j), list(mesh.k)) == ([0], [1], [2])
    assert list(mesh.vertexcolor) == ["rgb(255,0,0)", "rgb(0,255,0)", "rgb(0,0,255)"]
    assert drawn.layout.scene.camera.up.y == 1  # y is up


def test_points_are_drawn_as_points() -> None:
    shape = read_shape(POINTS, "model/ply")
    assert shape is not None
    (cloud,) = figure(shape).data
    assert cloud.type == "scatter3d"
    assert list(cloud.x) == [0, 1, 0]
    assert list(cloud.marker.color) == ["rgb(255,0,0)", "rgb(0,255,0)", "rgb(0,0,255)"]
    listed = b"v 0 0 0\nv 1 2 3\nv 0 1 0\nf 1 2 3\n"
    found = read_shape(listed, "text/plain")
    assert found is not None
    assert found.places.tolist() == [[0, 0, 0], [1, 2, 3], [0, 1, 0]]


def test_what_is_broken_is_not_drawn() -> None:
    for data, kind in (
        (b"", "model/ply"),
        (TRIANGLE[:200], "model/ply"),
        (TRIANGLE.replace(b"1 0 0 0 255 0", b"nan 0 0 0 255 0"), "model/ply"),
        (b"garbage", "model/gltf-binary"),
        (b"\0" * 100, "model/stl"),
        (b"no shape at all", "text/plain"),
        (TRIANGLE, "application/zip"),
    ):
        assert read_shape(data, kind) is None


def test_large_shapes_are_thinned_and_still_look_like_themselves() -> None:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=7)
    shape = read_shape(ball.export(file_type="ply"), "model/ply")
    assert shape is not None
    assert 5_000 < len(shape.faces) <= MOST_FACES < len(ball.faces)
    assert f"{len(ball.faces):,} triangles" in shape.said
    assert np.linalg.norm(shape.places, axis=1).min() > 0.98
    many = b"\n".join(b"v %d %d 0" % (i % 300, i // 300) for i in range(90_000))
    thinned = read_shape(many, "model/obj")
    assert thinned is None or len(thinned.places) <= MOST_POINTS


@pytest.mark.parametrize("format", ["ply", "obj", "glb", "stl"])
def test_what_the_shape_modality_writes_can_be_drawn(format: str) -> None:
    pytest.importorskip("torch")
    import trimesh

    from perrin_shape.cloud import Cloud
    from perrin_shape.mesh import Mesh
    from perrin_shape.writing import write

    ball = trimesh.creation.icosphere()
    colours = np.tile(np.uint8([[200, 60, 20]]), (len(ball.vertices), 1))
    cloud = Cloud(ball.vertices.astype(np.float32), ball.vertex_normals.astype(np.float32), colours)
    mesh = Mesh(cloud.points, ball.faces.astype(np.int32), cloud.normals, colours)
    kinds = {"ply": "model/ply", "obj": "model/obj", "glb": "model/gltf-binary", "stl": "model/stl"}
    for surface in (mesh, None):
        if surface is None and format == "stl":
            continue
        shape = read_shape(write(cloud, surface, format, {"seed": 1}), kinds[format])
        assert shape is not None
        assert len(shape.faces) == (0 if surface is None else len(ball.faces))
        if format != "stl":
            assert shape.colours is not None
            assert np.abs(shape.colours.astype(int) - colours[0]).max() <= 1
        assert len(figure(shape).data) == 1
