"""What a file of a shape says of itself: comments of PLY and OBJ, extras of GLB, the header of STL.

The note is JSON. A line of a PLY or an OBJ holds a piece of it, since readers of both have limits; the header of a
binary STL has 80 bytes, so of a long note it holds the first words, those that tell where to look for the rest.

References:
    Turk, The PLY Polygon File Format (1994); Wavefront, Advanced Visualizer, appendix B (OBJ); Khronos Group, glTF 2.0,
    sections 3.2 and 4.4 (GLB); 3D Systems, StereoLithography Interface Specification (1989).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

__all__ = ["HEADER", "glb_json", "lines", "read_glb", "read_ply", "read_stl", "read_text", "stl_header"]

HEADER = 80
"""Bytes of a binary STL that are anybody's."""

WIDTH = 200
"""Characters of a note in one line."""

MOST = 2**24
"""Bytes of a file that are looked at for a note."""

_MARK = "perrin "
_FIRST = ("model", "seed", "model_sha256")
_CUT = 12
"""Characters of a hash that an STL has room for."""


def lines(note: Mapping[str, Any], word: str) -> str:
    """Lines that begin with ``word`` (``comment``, ``#``) and hold a note, each ending in a newline."""
    text = json.dumps(note, sort_keys=True, ensure_ascii=True)
    return "".join(f"{word} {_MARK}{text[at : at + WIDTH]}\n" for at in range(0, len(text), WIDTH))


def stl_header(note: Mapping[str, Any]) -> bytes:
    """80 bytes: the version, the model, the seed and the start of the model's hash, as far as they fit."""
    values = {**note.get("parameters", {}), **{k: v for k, v in note.items() if k != "parameters"}}
    kept: dict[str, Any] = {"perrin": values.get("perrin", "")}
    for name in _FIRST:
        if values.get(name) is None:
            continue
        value = values[name][:_CUT] if name.endswith("sha256") else values[name]
        wider = {**kept, name: value}
        if len(json.dumps(wider, separators=(",", ":"))) <= HEADER:
            kept = wider
    return json.dumps(kept, separators=(",", ":")).encode().ljust(HEADER)[:HEADER]


def read_ply(data: bytes) -> str | None:
    """The JSON in the comments of a PLY file's header.

    Raises:
        ValueError: the header does not end.
    """
    head, found, _ = data[:MOST].partition(b"end_header")
    if not found:
        raise ValueError("it is cut short")
    return _joined(head.decode("utf-8", "replace").splitlines(), "comment ")


def read_text(data: bytes) -> str | None:
    """The JSON in the comments at the head of an OBJ file, or of another whose comments begin with #."""
    head = []
    for line in data[:MOST].decode("utf-8", "replace").splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    return _joined(head, "# ")


def read_glb(data: bytes) -> str | None:
    """The JSON in ``asset.extras.perrin`` of a GLB file.

    Raises:
        ValueError: it is no whole GLB.
    """
    asset = glb_json(data).get("asset", {})
    extras = asset.get("extras") if isinstance(asset, dict) else None
    return json.dumps(extras["perrin"]) if isinstance(extras, dict) and "perrin" in extras else None


def glb_json(data: bytes) -> dict[str, Any]:
    """The JSON chunk of a GLB file.

    Raises:
        ValueError: it is cut short, or its first chunk is no JSON object.
    """
    if len(data) < 20:
        raise ValueError("it is cut short")
    version, total, length, kind = struct.unpack_from("<III4s", data, 4)
    if version != 2:
        raise ValueError(f"it is glTF version {version}, wanted 2")
    if total > len(data) or 20 + length > len(data):
        raise ValueError("it is cut short")
    if kind != b"JSON" or length > MOST:
        raise ValueError("its first part is no JSON of a scene")
    try:
        scene = json.loads(data[20 : 20 + length])
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(scene, dict):
        raise ValueError("its first part is no JSON of a scene")
    return scene


def read_stl(data: bytes) -> str | None:
    """The JSON in the header of a binary STL: what fitted."""
    head = data[:HEADER].rstrip(b"\0 ")
    if not head.startswith(b'{"perrin"'):
        return None
    return head.decode("utf-8", "replace")


def _joined(head: list[str], word: str) -> str | None:
    start = word + _MARK
    text = "".join(line[len(start) :] for line in head if line.startswith(start))
    return text or None
