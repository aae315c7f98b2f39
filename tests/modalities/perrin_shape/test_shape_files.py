"""Shapes as files: what is written is read again, says how it was made, and broken files are refused in one line."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from perrin.commands.inspect import read_metadata
from perrin.errors import Degenerate, InvalidInput
from perrin.media import sniff
from perrin_shape.cloud import Cloud, check
from perrin_shape.face import modality
from perrin_shape.mesh import Mesh, sampled, vertex_normals
from perrin_shape.pictures import frames, preview, turntable
from perrin_shape.reading import MOST, POINTS, centred, read, read_said, thinned
from perrin_shape.writing import FORMATS, exported, write

NOTE = {
    "perrin": "0.1.0",
    "modality": "shape",
    "model": "bricks-and-furniture",
    "model_sha256": "ab" * 32,
    "parameters": {"prompt": "a chair – größer, 椅子", "seed": 7, "steps": 30},
}
TYPES = {
    "ply": "model/ply",
    "obj": "text/plain",
    "glb": "model/gltf-binary",
    "stl": "model/stl",
    "gif": "image/gif",
    "png": "image/png",
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices = (ball.vertices * [0.9, 0.5, 0.4]).astype(np.float32)
    faces = ball.faces.astype(np.int32)
    colours = ((vertices + 1) * 120).astype(np.uint8)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), colours, "poisson", True)


@pytest.fixture(scope="module")
def cloud(mesh: Mesh) -> Cloud:
    points, face, weights = sampled(mesh.vertices, mesh.faces, 900)
    assert mesh.normals is not None
    assert mesh.colours is not None
    normals = np.einsum("nk,nkd->nd", weights, mesh.normals[mesh.faces[face]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = np.einsum("nk,nkd->nd", weights, mesh.colours[mesh.faces[face]].astype(float)).astype(np.uint8)
    return centred(Cloud(points, normals.astype(np.float32), colours))


@pytest.mark.parametrize("format", ["ply", "obj", "glb"])
def test_points_are_read_as_they_were_written(format: str, cloud: Cloud) -> None:
    found = read(write(cloud, None, format, NOTE), f"chair.{format}")
    assert len(found) == len(cloud)
    np.testing.assert_allclose(found.points, cloud.points, atol=2e-6)
    assert found.normals is not None
    assert cloud.normals is not None
    np.testing.assert_allclose(found.normals, cloud.normals, atol=1e-4)
    assert found.colours is not None
    assert cloud.colours is not None
    assert np.abs(found.colours.astype(int) - cloud.colours).max() <= 1


@pytest.mark.parametrize("format", ["ply", "obj", "glb", "stl"])
def test_a_mesh_is_read_as_points_of_its_surface(format: str, mesh: Mesh, cloud: Cloud) -> None:
    data = write(cloud, mesh, format, NOTE)
    found = read(data, "x")  # told by its bytes
    assert len(found) == POINTS
    assert np.linalg.norm(found.points, axis=1).max() == pytest.approx(1)
    away, near = cKDTree(cloud.points).query(found.points)
    assert away.max() < 0.12
    assert found.normals is not None
    assert cloud.normals is not None
    assert (found.normals * cloud.normals[near]).sum(1).mean() > 0.97
    if format != "stl":
        assert found.colours is not None
        assert cloud.colours is not None
        assert np.abs(found.colours.astype(int) - cloud.colours[near]).mean() < 6
    kept: Any = trimesh.load(io.BytesIO(data), file_type=format, force="mesh")  # others read it too
    assert kept.is_watertight
    assert len(kept.faces) == len(mesh.faces)
    np.testing.assert_array_equal(read(data, "x").points, found.points)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_says_how_it_was_made(format: str, mesh: Mesh, cloud: Cloud, tmp_path: Path) -> None:
    for surface in (mesh, None):
        if format == "stl" and surface is None:
            with pytest.raises(InvalidInput, match="triangles alone"):
                write(cloud, None, format, NOTE)
            continue
        data = write(cloud, surface, format, NOTE, size=48, frames=4)
        assert data == write(cloud, surface, format, NOTE, size=48, frames=4)
        assert sniff(data) == TYPES[format]
        path = tmp_path / f"chair.{format}"
        path.write_bytes(data)
        found = read_metadata(path)
        if format == "stl":
            assert found == {"perrin": "0.1.0", "model": "bricks-and-furniture", "seed": 7}
            continue
        said = found.pop("surface", None)
        assert found == NOTE
        assert said == (None if surface is None else {"how": "poisson", "watertight": True, "triangles": 5120})


def test_lines_of_text_formats_stay_short(mesh: Mesh, cloud: Cloud) -> None:
    long = {**NOTE, "parameters": {"prompt": "chair " * 200}}
    for format in ("ply", "obj"):
        head = write(cloud, None, format, long)[:4000].split(b"end_header")[0]
        assert max(len(line) for line in head.split(b"\n")) < 256
        assert read(write(cloud, None, format, long), "x").points.shape == cloud.points.shape


# --- what people give -------------------------------------------------------------------------------------------------


def points_file(points: Any, kind: str = "xyz") -> bytes:
    if kind == "npz":
        stream = io.BytesIO()
        np.savez(stream, points=points)
        return stream.getvalue()
    return "\n".join(" ".join(map(str, row)) for row in np.asarray(points).tolist()).encode()


BALL = np.random.default_rng(0).standard_normal((300, 3))
BALL /= np.linalg.norm(BALL, axis=1, keepdims=True)


def test_lists_of_numbers_are_clouds() -> None:
    plain = read(points_file(5 * BALL + 3), "ball.xyz")
    np.testing.assert_allclose(plain.points, read(points_file(BALL, "npz"), "ball.npz").points, atol=1e-5)
    assert plain.normals is None
    assert plain.colours is None
    with_normals = read(points_file(np.concatenate([BALL, BALL], 1)), "ball.txt")
    assert with_normals.normals is not None
    np.testing.assert_allclose(with_normals.normals, BALL, atol=1e-6)
    shades = np.random.default_rng(1).integers(0, 256, (300, 3))
    coloured = read(b"300\n" + points_file(np.concatenate([BALL.astype(object), shades.astype(object)], 1)), "b.xyz")
    np.testing.assert_array_equal(coloured.colours, shades)
    commas = points_file(BALL).replace(b" ", b", ")
    np.testing.assert_array_equal(read(commas, "ball.csv").points, read(points_file(BALL), "ball.xyz").points)


BROKEN_HALF = trimesh.creation.icosphere().export(file_type="ply")[:900]
EMPTY_OBJ = b"# nothing\nmtllib chair.mtl\no chair\n"


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "a.ply", "something in it"),
        (points_file(BALL[:1]), "a.xyz", "1 point"),
        (points_file(np.ones((50, 3))), "a.xyz", "50 points at one place"),
        (points_file(np.full((9, 3), np.nan)), "a.xyz", "not finite"),
        (points_file(np.concatenate([BALL, [[np.inf, 0, 0]]])), "a.xyz", "1 of 301 points that are not finite"),
        (b"1 2\n3 4\n5 6\n7 8\n", "a.xyz", "wanted 3 or 6"),
        (b"1 2 3\nchair chair chair\n", "a.xyz", "no line of numbers"),
        (b"\x00\xff\x00garbage", "a.xyz", "shape"),
        (b"garbage", "a.ply", "PLY"),
        (BROKEN_HALF, "a.ply", "whole PLY"),
        (b"ply\nformat ascii 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n", "a.ply", "at most"),
        (b"ply\nformat ascii 1.0\nelement vertex 9999999\nproperty float x\nend_header\n1\n", "a.ply", "cut short"),
        (EMPTY_OBJ, "a.obj", "no points"),
        (b"glTF\x02\0\0\0", "a.glb", "cut short"),
        (b"PK\x03\x04nothing", "a.npz", "NPZ"),
        (trimesh.Trimesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], process=False).export(file_type="stl"),
         "a.stl", "without area"),
        (b"solid x\nfacet normal 0 0 0\nouter loop\nvertex nan 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
         b"endsolid x\n", "a.stl", "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_shape_is_refused_in_one_line(data: bytes, name: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        read(data, name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def glb(change: Any) -> bytes:
    """A triangle of a GLB whose JSON ``change`` has altered."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    scene: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"byteLength": 36}],
    }
    change(scene)
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", 36, b"BIN\0") + corners
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def test_scenes_are_put_together_and_bombs_refused() -> None:
    def turned(scene: dict[str, Any]) -> None:
        scene["nodes"] = [{"children": [1], "translation": [0, 0, 5]}, {"mesh": 0, "scale": [2, 2, -2]}]

    assert len(read(glb(lambda scene: None), "a.glb")) == POINTS
    found = read(glb(turned), "a.glb")
    assert found.normals is not None
    np.testing.assert_allclose(np.abs(found.normals[:, 2]), 1)
    refused: dict[str, Any] = {
        "circle": lambda s: s["nodes"][0].update(children=[0]),
        "beyond the end": lambda s: s["accessors"][0].update(count=10**9),
        "of its own": lambda s: (s["accessors"][0].pop("bufferView"), s["accessors"][0].update(count=10**9)),
        "not fetched": lambda s: s["buffers"][0].update(uri="file:///etc/passwd"),
        "KHR_draco": lambda s: s.update(extensionsRequired=["KHR_draco_mesh_compression"]),
        "hold together": lambda s: s["nodes"][0].update(mesh=7),
        "pieces": lambda s: (s.update(nodes=[{"mesh": 0}] * 90_000, scenes=[{"nodes": [0] * 99_000}]),
                              s.update(meshes=[{"primitives": s["meshes"][0]["primitives"] * 400}])),
    }  # fmt: skip
    for said, change in refused.items():
        with pytest.raises(InvalidInput, match=said):
            read(glb(change), "a.glb")


def test_a_file_that_unpacks_to_much_is_refused() -> None:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("points.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(InvalidInput, match="unpacks to more"):
        read(stream.getvalue(), "a.npz")
    pickled = io.BytesIO()
    np.savez(pickled, points=np.array([{"a": 1}], object))
    with pytest.raises(InvalidInput, match="NPZ"):
        read(pickled.getvalue(), "a.npz")


def test_a_million_points_are_thinned_evenly_and_it_is_said() -> None:
    generator = np.random.default_rng(0)
    many = generator.standard_normal((1_000_000, 3)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    many[:900_000, 2] = np.abs(many[:900_000, 2])  # nearly all above
    began = time.process_time()
    found, said = read_said(points_file(many, "npz"), "a.npz")
    assert time.process_time() - began < 15
    assert 0.6 * MOST <= len(found) <= MOST
    assert "1,000,000 points" in said[0]
    below = (found.points[:, 2] < np.median(found.points[:, 2])).mean()
    assert below > 0.45
    assert len(thinned(Cloud(np.zeros((100, 3), np.float32)), 10)) == 10


def test_meshes_that_are_no_solids_are_read() -> None:
    fan = trimesh.Trimesh(
        [[0, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1]], [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False
    )  # three triangles at one edge
    assert not fan.is_watertight
    assert len(read(fan.export(file_type="ply"), "fan.ply")) == POINTS
    quads = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nmtllib /etc/passwd\nusemtl x\nf 1 2 3 4\n"
    assert len(read(quads, "quad.obj")) == POINTS
    inside_out = trimesh.creation.icosphere()
    inside_out.invert()
    found = read(inside_out.export(file_type="stl"), "ball.stl")
    assert found.normals is not None
    assert ((found.normals * found.points).sum(1) > 0.9).all()
    far = trimesh.creation.icosphere().apply_scale(1e-3).apply_translation([1e4, 0, 0])
    assert len(read(far.export(file_type="obj").encode(), "far.obj")) == POINTS


@pytest.mark.parametrize("format", ["ply", "obj", "glb", "stl", "xyz", "npz"])
def test_a_shape_can_stay_where_it_is(format: str, mesh: Mesh) -> None:
    corner = np.float32([10, 20, -30])
    moved = Mesh(mesh.vertices * np.float32(3) + corner, mesh.faces, mesh.normals, mesh.colours)
    loose = Cloud(moved.vertices, moved.normals, moved.colours)
    for surface in (moved, None):
        if format in ("xyz", "npz"):
            data = points_file(loose.points, format)
        elif surface is None and format == "stl":
            continue
        else:
            data = write(loose, surface, format, NOTE)
        found = read(data, f"a.{format}", centre=False)
        np.testing.assert_allclose(found.points.min(0), moved.vertices.min(0), atol=0.1)
        np.testing.assert_allclose(found.points.max(0), moved.vertices.max(0), atol=0.1)


def test_collapsed_clouds_are_degenerate() -> None:
    generator = np.random.default_rng(0)
    check(Cloud(BALL.astype(np.float32)))
    line = np.linspace(-1, 1, 500)[:, None] * np.ones(3)
    outlier = np.concatenate([1e-3 * generator.standard_normal((499, 3)), [[1, 0, 0]]])
    few = BALL[generator.integers(0, 5, 500)]
    for points in (np.zeros((0, 3)), np.full((5, 3), np.nan), np.ones((500, 3)), line, outlier, few):
        with pytest.raises(Degenerate):
            check(Cloud(points.astype(np.float32)))


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_result_is_pictured_as_its_mesh_and_as_its_points_where_it_has_none(tmp_path: Path) -> None:
    formats = {one.name: one for one in modality.formats}
    three = Cloud(BALL[:3].astype(np.float32))
    for name in ("png", "gif"):
        for cloud, surfaced in ((Cloud(BALL.astype(np.float32)), True), (three, False)):
            path = tmp_path / f"{surfaced}.{name}"
            path.write_bytes(exported(cloud, "auto", formats[name], NOTE))
            assert ("surface" in read_metadata(path)) == surfaced
            with Image.open(path) as picture:
                assert picture.width > 200
    with pytest.raises(Degenerate, match="3 points"):
        exported(three, "auto", formats["glb"], NOTE)


def test_pictures_show_the_shape_lit_from_above(mesh: Mesh, cloud: Cloud) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    round_one = Mesh(ball.vertices.astype(np.float32), ball.faces.astype(np.int32), watertight=True)
    for thing in (round_one, Cloud(BALL.astype(np.float32)), cloud, mesh):
        clear = np.asarray(Image.open(io.BytesIO(preview(thing, 128, background=None))))
        assert clear.shape == (128, 128, 4)
        assert clear[:2, :, 3].max() == 0  # nothing is cut off, and the corners are empty
        assert 0.1 < (clear[..., 3] > 250).mean() < 0.8
        white = np.asarray(Image.open(io.BytesIO(preview(thing, 128))))
        assert (white[0, 0] == 255).all()
    picture = np.asarray(Image.open(io.BytesIO(preview(round_one, 128, None)))).astype(int)
    assert picture[25, 58, :3].sum() > picture[103, 70, :3].sum() + 90
    middle = np.flatnonzero(picture[64, :, 3] > 250)
    assert abs((middle[0] + middle[-1]) / 2 - 63.5) < 1.5  # it is in the middle
    assert len(np.unique(picture[..., 3])) > 20  # edges are anti-aliased


def test_colours_in_pictures_are_the_points_own() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    red = np.tile(np.uint8([[220, 30, 30]]), (len(ball.vertices), 1))
    thing = Mesh(ball.vertices.astype(np.float32), ball.faces.astype(np.int32), None, red)
    middle = np.asarray(Image.open(io.BytesIO(preview(thing, 64))))[28, 28].astype(int)
    assert middle[0] > 2.5 * middle[1]


def test_a_turn_comes_back_to_where_it_began(mesh: Mesh) -> None:
    made = frames(mesh, 64, 8)
    assert made.shape == (8, 64, 64, 4)
    assert np.abs(made[4].astype(int) - made[0]).mean() > 0.5
    long_way = Image.open(io.BytesIO(turntable(mesh, 64, 8, seconds=1.6)))
    assert (long_way.n_frames, long_way.info["duration"], long_way.info["loop"]) == (8, 200, 0)
    half = Mesh(mesh.vertices * np.float32([-1, 1, -1]), mesh.faces, None, mesh.colours)
    np.testing.assert_allclose(frames(half, 64, 2)[1].astype(int), made[0], atol=12)


def test_the_nearest_triangle_is_seen_and_boxes_have_edges() -> None:
    box = trimesh.creation.box((1, 1, 1))
    thing = Mesh(box.vertices.astype(np.float32), box.faces.astype(np.int32))
    picture = np.asarray(Image.open(io.BytesIO(preview(thing, 128, None)))).astype(int)
    shades = [picture[y, x, :3].sum() for y, x in ((30, 64), (75, 40), (75, 90))]
    assert len({round(shade / 20) for shade in shades}) == 3  # three sides, three shades
