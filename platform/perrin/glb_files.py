"""A GLB file's triangles or points, where the scene puts them, with normals and colours; nothing outside the file.

Materials give a plain colour where corners have none; pictures on surfaces are not looked at.

References:
    Khronos Group, glTF 2.0 specification, sections 3.5 (nodes), 3.6 (accessors), 3.7 (meshes), 4.4 (GLB).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perrin.shape_notes import glb_json

__all__ = ["Part", "read_parts"]

TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6

MOST_NODES, MOST_PIECES = 100_000, 20_000
DEEPEST = 64


class Part(NamedTuple):
    """One piece of a scene.

    Attributes:
        places: (v, 3) float64.
        faces: (f, 3), or None for points.
        normals: (v, 3), or None.
        colours: (v, 3) uint8, sRGB, or None.
    """

    places: NDArray[np.float64]
    faces: NDArray[np.int64] | None
    normals: NDArray[np.float64] | None
    colours: NDArray[np.uint8] | None


def read_parts(data: bytes, most: int) -> list[Part]:
    """The pieces of the scene in a GLB file.

    Args:
        data: the file.
        most: corners and triangles that all pieces together may have.

    Raises:
        ValueError: it is broken, too large, or needs something that is not in it.
    """
    try:
        return list(_parts(data, most))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its scene does not hold together ({type(error).__name__}: {error})") from None


def _parts(data: bytes, most: int) -> Iterator[Part]:
    scene = glb_json(data)
    if scene.get("extensionsRequired"):
        raise ValueError(f"it needs {', '.join(map(str, scene['extensionsRequired']))[:60]}, which is not read here")
    if any("uri" in buffer for buffer in scene.get("buffers", ())):
        raise ValueError("its numbers lie in another file, which is not fetched: wanted all in one")
    if len(scene.get("nodes", ())) > MOST_NODES:
        raise ValueError(f"a scene of more than {MOST_NODES:,} nodes")
    buffer = _buffer(data)
    total = pieces = 0
    for mesh, matrix in _placed(scene):
        for piece in scene["meshes"][mesh]["primitives"]:
            mode = piece.get("mode", TRIANGLES)
            if mode not in (POINTS, TRIANGLES, STRIP, FAN):
                continue
            pieces += 1
            if pieces > MOST_PIECES:
                raise ValueError(f"a scene of more than {MOST_PIECES:,} pieces")
            part = _part(scene, buffer, piece, mode, matrix)
            total += len(part.places) + len(part.faces if part.faces is not None else ())
            if total > most:
                raise ValueError(f"a scene of more than {most // 1_000_000} million corners and triangles")
            yield part


def _buffer(data: bytes) -> memoryview:
    (length,) = struct.unpack_from("<I", data, 12)
    at = 20 + length
    if at + 8 > len(data):
        return memoryview(b"")
    size, kind = struct.unpack_from("<I4s", data, at)
    if kind != b"BIN\0" or at + 8 + size > len(data):
        raise ValueError("it is cut short")
    return memoryview(data)[at + 8 : at + 8 + size]


def _placed(scene: dict[str, Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Meshes with the matrices (4, 4) that put them in their places."""
    nodes = scene.get("nodes", [])
    scenes = scene.get("scenes", [])
    roots = scenes[scene.get("scene", 0)].get("nodes", []) if scenes else [*range(len(nodes))]
    if not nodes:
        yield from ((number, np.eye(4)) for number in range(len(scene.get("meshes", ()))))
        return
    waiting = [(root, np.eye(4), 0) for root in roots]
    seen = 0
    while waiting:
        number, above, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_NODES:
            raise ValueError("its nodes are nested too deeply, or in a circle")
        node = nodes[number]
        matrix = above @ _matrix(node)
        if "mesh" in node:
            yield node["mesh"], matrix
        waiting += [(child, matrix, depth + 1) for child in node.get("children", ())]


def _matrix(node: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _part(scene: dict[str, Any], buffer: memoryview, piece: Any, mode: int, matrix: NDArray[np.float64]) -> Part:
    attributes = piece["attributes"]
    places = _numbers(scene, buffer, attributes["POSITION"]).astype(np.float64)
    turn = matrix[:3, :3]
    normals = None
    if "NORMAL" in attributes:
        normals = _numbers(scene, buffer, attributes["NORMAL"]).astype(np.float64) @ np.linalg.pinv(turn)
    faces = None
    if mode != POINTS:
        if "indices" in piece:
            order = _numbers(scene, buffer, piece["indices"]).reshape(-1).astype(np.int64)
            if len(order) and not 0 <= order.min() <= order.max() < len(places):
                raise ValueError("a triangle of corners that are not there")
        else:
            order = np.arange(len(places))
        faces = _faces(order, mode)
        if np.linalg.det(turn) < 0:
            faces = faces[:, ::-1]
    return Part(places @ turn.T + matrix[:3, 3], faces, normals, _colours(scene, buffer, piece, len(places)))


def _faces(order: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    count = max(0, len(order) - 2)
    if mode == FAN:
        return np.stack([np.full(count, order[0]) if count else order[:0], order[1:-1], order[2:]], 1)
    faces = np.stack([order[:count], order[1 : count + 1], order[2 : count + 2]], 1)
    faces[1::2] = faces[1::2][:, [1, 0, 2]]
    return faces


def _colours(scene: dict[str, Any], buffer: memoryview, piece: Any, count: int) -> NDArray[np.uint8] | None:
    plain = np.ones(3)
    told = "COLOR_0" in piece["attributes"]
    if "material" in piece:
        look = scene["materials"][piece["material"]].get("pbrMetallicRoughness", {})
        plain = np.array(look.get("baseColorFactor", (1, 1, 1, 1)), np.float64)[:3]
    if not told and (plain == 1).all():
        return None
    linear = np.ones((count, 3))
    if told:
        linear = _numbers(scene, buffer, piece["attributes"]["COLOR_0"])[:, :3].astype(np.float64)
    value = (linear * plain).clip(0, 1)
    shown = np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
    return (shown * 255).round().astype(np.uint8)


def _numbers(scene: dict[str, Any], buffer: memoryview, number: int) -> NDArray[Any]:
    """(count, width) of an accessor; normalised ones as floats."""
    accessor = scene["accessors"][number]
    if "bufferView" not in accessor or "sparse" in accessor:
        raise ValueError("an accessor without numbers of its own")
    view = scene["bufferViews"][accessor["bufferView"]]
    kind, width, count = np.dtype(TYPES[accessor["componentType"]]), SIZES[accessor["type"]], int(accessor["count"])
    item = kind.itemsize * width
    stride = int(view.get("byteStride") or item)
    begin = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
    if begin < 0 or count < 0 or stride < item or begin + (stride * (count - 1) + item if count else 0) > len(buffer):
        raise ValueError("an accessor beyond the end of its numbers")
    found = np.ndarray((count, width), kind, buffer, begin, (stride, kind.itemsize)).copy()
    if accessor.get("normalized") and kind.kind in "iu":
        return np.maximum(found.astype(np.float64) / np.iinfo(kind).max, -1)
    return found
