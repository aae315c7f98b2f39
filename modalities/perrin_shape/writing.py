"""Shapes as files: PLY, OBJ, GLB and STL, a turning GIF and a PNG, each with how it was made inside.

The same shape and note give the same bytes. Where a mesh is there it is written, else the points; an STL holds
triangles alone. Colours are sRGB in PLY, in OBJ (after each vertex, as MeshLab and Blender read them) and in pictures,
and linear in GLB, whose specification wants them so; STL has none.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perrin.clip_notes import with_gif
from perrin.errors import Degenerate, InvalidInput
from perrin.modality import Format
from perrin.shape_notes import lines, stl_header
from perrin_shape.cloud import Cloud
from perrin_shape.mesh import Mesh
from perrin_shape.pictures import linear, preview, turntable
from perrin_shape.surface import How, reconstruct

__all__ = ["FORMATS", "exported", "write"]

SIZE, TURNING = 384, 256
"""Pixels along a side of a picture, and of one that turns."""

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
"""glTF's numbers for component types."""

ARRAY, ELEMENTS = 34962, 34963
"""glTF's numbers for what a part of the buffer holds."""


def exported(cloud: Cloud, how: How, format: Format, note: Mapping[str, Any]) -> bytes:
    """A result as a file: its points, a mesh of them, or a picture of that mesh; of the points where they have none.

    Raises:
        Degenerate: a mesh is wanted, and the points have no surface.
    """
    mesh = None
    if format.name != "ply":
        try:
            mesh = reconstruct(cloud, how)
        except Degenerate:
            if not format.media_type.startswith("image/"):
                raise
    return write(cloud, mesh, format.name, note)


def write(
    cloud: Cloud, mesh: Mesh | None, format: str, note: Mapping[str, Any], size: int | None = None, frames: int = 36
) -> bytes:
    """One shape as a file.

    Args:
        cloud: the points.
        mesh: their surface, where there is one.
        format: of `FORMATS`.
        note: how it was made; of a mesh, what made it and whether it is watertight are added as ``surface``.
        size: pixels along a side of a picture; by default 384, and 256 where it turns.
        frames: of a turn.

    Raises:
        InvalidInput: an STL of points.
    """
    if mesh is not None:
        note = {**note, "surface": {"how": mesh.how, "watertight": mesh.watertight, "triangles": len(mesh.faces)}}
    thing = cloud if mesh is None else mesh
    said = str(note.get("parameters", {}).get("prompt") or "")
    match format:
        case "ply":
            return _ply(thing, note)
        case "obj":
            return _obj(thing, note)
        case "glb":
            return _glb(thing, note)
        case "stl":
            if mesh is None:
                raise InvalidInput("format", "stl", "ply, obj or glb for points: an STL holds triangles alone")
            return _stl(mesh, note)
        case "gif":
            return with_gif(
                turntable(thing, size or TURNING, frames), note, said, f"Perrin {note.get('perrin', '')}".strip()
            )
        case "png":
            return _png(preview(thing, size or SIZE), note)
    raise InvalidInput("format", format, "one of " + ", ".join(FORMATS))


def _png(data: bytes, note: Mapping[str, Any]) -> bytes:
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_itxt("perrin", json.dumps(note, sort_keys=True, ensure_ascii=False))
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def _places(thing: Cloud | Mesh) -> NDArray[np.float32]:
    return thing.points if isinstance(thing, Cloud) else thing.vertices


def _ply(thing: Cloud | Mesh, note: Mapping[str, Any]) -> bytes:
    """Binary, little-endian."""
    places = _places(thing)
    columns: list[tuple[str, str, NDArray[Any]]] = [(n, "<f4", places[:, k]) for k, n in enumerate("xyz")]
    if thing.normals is not None:
        columns += [(n, "<f4", thing.normals[:, k]) for k, n in enumerate(("nx", "ny", "nz"))]
    if thing.colours is not None:
        columns += [(n, "u1", thing.colours[:, k]) for k, n in enumerate(("red", "green", "blue"))]
    rows = np.empty(len(places), [(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    words = {"<f4": "float", "u1": "uchar"}
    head = "ply\nformat binary_little_endian 1.0\n" + lines(note, "comment") + f"element vertex {len(places)}\n"
    head += "".join(f"property {words[kind]} {name}\n" for name, kind, _ in columns)
    body = rows.tobytes()
    if isinstance(thing, Mesh):
        head += f"element face {len(thing.faces)}\nproperty list uchar int vertex_indices\n"
        triangles = np.empty(len(thing.faces), [("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, thing.faces
        body += triangles.tobytes()
    return (head + "end_header\n").encode() + body


def _obj(thing: Cloud | Mesh, note: Mapping[str, Any]) -> bytes:
    rows = _places(thing).astype(np.float64)
    form = "v %.6f %.6f %.6f"
    if thing.colours is not None:
        rows, form = np.concatenate([rows, thing.colours / 255], 1), form + " %.4f %.4f %.4f"
    parts = [lines(note, "#").rstrip("\n"), *(form % tuple(row) for row in rows.tolist())]
    if thing.normals is not None:
        parts += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in thing.normals.tolist()]
    if isinstance(thing, Mesh):
        face = "f %d//%d %d//%d %d//%d" if thing.normals is not None else "f %d %d %d"
        numbers = thing.faces + 1
        numbers = numbers.repeat(2, 1) if thing.normals is not None else numbers
        parts += [face % tuple(row) for row in numbers.tolist()]
    else:
        parts += [f"p {number}" for number in range(1, len(rows) + 1)]
    return ("\n".join(parts) + "\n").encode()


def _stl(mesh: Mesh, note: Mapping[str, Any]) -> bytes:
    corners = mesh.vertices[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    rows = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    rows["normal"] = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    rows["corners"] = corners
    return stl_header(note) + struct.pack("<I", len(rows)) + rows.tobytes()


def _glb(thing: Cloud | Mesh, note: Mapping[str, Any]) -> bytes:
    places = _places(thing).astype("<f4")
    accessors: list[dict[str, Any]] = []
    views: list[dict[str, Any]] = []
    buffer = bytearray()

    def put(values: NDArray[Any], kind: int, shape: str, target: int, **more: Any) -> int:
        data = values.tobytes()
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data), "target": target})
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": kind, "count": len(values), "type": shape, **more}
        )
        buffer.extend(data + bytes(-len(data) % 4))
        return len(accessors) - 1

    bounds = {"min": places.min(0).tolist(), "max": places.max(0).tolist()}
    attributes = {"POSITION": put(places, FLOAT, "VEC3", ARRAY, **bounds)}
    if thing.normals is not None:
        attributes["NORMAL"] = put(thing.normals.astype("<f4"), FLOAT, "VEC3", ARRAY)
    if thing.colours is not None:
        opaque = np.concatenate([linear(thing.colours), np.ones((len(places), 1), np.float32)], 1)
        shades = (opaque * 65535).round().astype("<u2")
        attributes["COLOR_0"] = put(shades, UINT16, "VEC4", ARRAY, normalized=True)
    part: dict[str, Any] = {"attributes": attributes, "mode": 0}
    if isinstance(thing, Mesh):
        numbers = put(thing.faces.astype("<u4").reshape(-1), UINT32, "SCALAR", ELEMENTS)
        part |= {"indices": numbers, "mode": 4, "material": 0}
    look = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 0.8}
    scene = {
        "asset": {"version": "2.0", "generator": "Perrin", "extras": {"perrin": note}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "shape"}],
        "meshes": [{"primitives": [part]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(buffer)}],
        **({"materials": [{"pbrMetallicRoughness": look}]} if isinstance(thing, Mesh) else {}),
    }
    text = json.dumps(scene, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


FORMATS = ("ply", "obj", "glb", "stl", "gif", "png")
"""What shapes are written as."""
