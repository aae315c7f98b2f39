"""How a result was made, inside clips: MP4, WebM, GIF, and ZIP. Reading and writing, by hand and in pure Python.

An MP4 has the XMP packet of `perrin.xmp` in the box that XMP says it goes in; a GIF has it in XMP's own application
block; a ZIP has the JSON in a member ``perrin.json``. A WebM is written by a muxer that knows tags, and here only read:
the tag PERRIN.

Reading walks over lengths and runs no parser that a stranger's file could make work for hours.

References:
    ISO/IEC 14496-12, section 4.2 (boxes); Adobe, XMP Specification Part 3 (2020), sections 1.1.2 (GIF), 1.2.6 (MP4);
    RFC 8794 (EBML); RFC 9559, section 5.1.8 (Matroska tags).
"""

from __future__ import annotations

import io
import struct
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from perrin.xmp import packet, packet_json

__all__ = ["boxes", "elements", "read_gif", "read_mp4", "read_webm", "read_zip", "with_gif", "with_mp4"]

_XMP = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_GIF = b"\x21\xff\x0bXMP DataXMP"
_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
"""Wherever a reader of sub-blocks lands in it, it is led to the end."""

LIMIT = 2**24
"""Of a note, in bytes."""


def with_mp4(data: bytes, metadata: Mapping[str, Any], description: str, software: str) -> bytes:
    """The MP4 ``data`` with ``metadata``."""
    body = _XMP + packet(metadata, description, software)
    return data + struct.pack(">I4s", len(body) + 8, b"uuid") + body


def with_gif(data: bytes, metadata: Mapping[str, Any], description: str, software: str) -> bytes:
    """The GIF ``data`` with ``metadata``."""
    if data[-1:] != b"\x3b":
        raise ValueError("it does not end as a GIF does")
    return data[:-1] + _GIF + packet(metadata, description, software) + _TRAILER + b"\x3b"


def read_mp4(data: bytes) -> str | None:
    """The JSON in an MP4 (or a QuickTime file), or None.

    Raises:
        ValueError: the file is cut short.
    """
    for kind, body in boxes(data):
        if kind == b"uuid" and body.startswith(_XMP):
            return packet_json(body)
    return None


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box of an MP4, or of a box that holds others.

    Raises:
        ValueError: it is cut short.
    """
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        if length == 0:
            length = len(data) - at
        if length < head or at + length > len(data):
            raise ValueError("it is cut short")
        yield kind, data[at + head : at + length]
        at += length


def read_gif(data: bytes) -> str | None:
    """The JSON in a GIF, or None."""
    at = data.rfind(_GIF)
    return None if at < 0 else packet_json(data[at : at + LIMIT])


def read_zip(data: bytes) -> str | None:
    """The JSON in a ZIP of frames, or None.

    Raises:
        ValueError: it is no whole ZIP.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "perrin.json" not in archive.namelist() or archive.getinfo("perrin.json").file_size > LIMIT:
                return None
            return archive.read("perrin.json").decode()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from None


# --- WebM -------------------------------------------------------------------------------------------------------------

_SEGMENT, _TAGS, _TAG, _SIMPLE, _NAME, _TEXT = 0x18538067, 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487


def read_webm(data: bytes) -> str | None:
    """The JSON in a WebM, or None."""
    for name, begin, end in elements(data, 0, len(data)):
        if name != _SEGMENT:
            continue
        for inner, first, last in elements(data, begin, end):
            if inner == _TAGS:
                found = _tagged(data, first, last)
                if found is not None:
                    return found
    return None


def _tagged(data: bytes, begin: int, end: int) -> str | None:
    for name, first, last in elements(data, begin, end):
        if name == _TAG:
            for simple, left, right in elements(data, first, last):
                if simple == _SIMPLE:
                    parts = {part: data[a:b] for part, a, b in elements(data, left, right)}
                    if parts.get(_NAME, b"").upper() == b"PERRIN" and _TEXT in parts:
                        return parts[_TEXT].decode()
    return None


def elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id of each EBML element from ``at`` to ``end``, and where what it holds begins and ends.

    Raises:
        ValueError: it is cut short, or broken.
    """
    while at < end:
        name, at = _number(data, at, keep=True)
        size, begin = _number(data, at, keep=False)
        unknown = size == (1 << 7 * (begin - at)) - 1
        last = end if unknown else begin + size
        if last > end:
            raise ValueError("it is cut short")
        yield name, begin, last
        at = last


def _number(data: bytes, at: int, keep: bool) -> tuple[int, int]:
    if at >= len(data) or data[at] == 0:
        raise ValueError("it is cut short, or broken")
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep else value - (1 << 7 * length)), at + length
