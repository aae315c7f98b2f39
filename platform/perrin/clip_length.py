"""How long a clip is, from what the file says of itself: no frame is decoded.

An MP4 or QuickTime file says it in its movie header, a WebM or Matroska file in its segment's information; of a GIF or
WebP the frames' own times are added up. Reading walks over lengths, as in `perrin.clip_notes`.

References:
    ISO/IEC 14496-12, sections 8.2.2 (mvhd) and 8.8.2 (mehd); RFC 9559, section 5.1.2 (Info); GIF89a Specification,
    section 23 (graphic control extension); RFC 9649, section 2.7.1.1 (ANMF).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from perrin.clip_notes import boxes, elements
from perrin.errors import InvalidInput
from perrin.inputs import InputFile

__all__ = ["clip_seconds"]

ALONE = 1 / 8
"""Seconds that a frame is shown of which nothing says it."""

_SEGMENT, _INFO, _SCALE, _DURATION = 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489


def clip_seconds(field: str, file: InputFile) -> float:
    """Seconds of the clip in ``file``.

    Args:
        field: the parameter that it was given for.
        file: an MP4, QuickTime, WebM, Matroska, GIF or WebP file.

    Raises:
        InvalidInput: no clip, a broken one, a still picture, or one that does not say how long it is.
    """
    read = {"image/gif": _gif, "image/webp": _webp, "video/webm": _matroska, "video/x-matroska": _matroska}
    wanted = "a whole clip that says how long it is: MP4, WebM, or a GIF or WebP that moves"
    known = {"video/mp4", "video/quicktime", *read}
    if file.media_type not in known:
        raise InvalidInput(field, file.media_type, wanted)
    try:
        seconds = read.get(file.media_type, _mp4)(file.data)
    except (ValueError, IndexError, KeyError, struct.error, ZeroDivisionError):
        seconds = 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidInput(field, file.media_type, wanted)
    return seconds


def _mp4(data: bytes) -> float:
    inner = dict(boxes(dict(boxes(data))[b"moov"]))
    head = inner[b"mvhd"]
    rate, length = struct.unpack_from(">IQ", head, 20) if head[0] == 1 else struct.unpack_from(">II", head, 12)
    if length in (0, 2**32 - 1, 2**64 - 1) and b"mvex" in inner:  # its parts follow one by one
        more = dict(boxes(inner[b"mvex"]))[b"mehd"]
        (length,) = struct.unpack_from(">Q" if more[0] == 1 else ">I", more, 4)
    return float(length / rate) if length not in (2**32 - 1, 2**64 - 1) else 0.0


def _matroska(data: bytes) -> float:
    for name, begin, end in elements(data, 0, len(data)):
        if name == _SEGMENT:
            for inner, first, last in elements(data, begin, end):
                if inner == _INFO:
                    parts = {part: data[a:b] for part, a, b in elements(data, first, last)}
                    scale = int.from_bytes(parts.get(_SCALE, b"\x0f\x42\x40"), "big")
                    length = parts[_DURATION]
                    (ticks,) = struct.unpack(">d" if len(length) == 8 else ">f", length)
                    return float(ticks * scale / 1e9)
    return 0.0


def _gif(data: bytes) -> float:
    times = list(_delays(data))
    return sum(time or ALONE for time in times) if len(times) > 1 else 0.0


def _delays(data: bytes) -> Iterator[float]:
    """Seconds that each picture of a GIF is shown, 0 where it does not say."""
    at = 13 + _table(data[10])
    delay = 0.0
    while data[at] != 0x3B:
        if data[at] == 0x21:
            if data[at + 1] == 0xF9:
                delay = struct.unpack_from("<H", data, at + 4)[0] / 100
            at = _after(data, at + 2)
        elif data[at] == 0x2C:
            yield delay
            delay = 0.0
            at = _after(data, at + 11 + _table(data[at + 9]))
        else:
            raise ValueError("no block of a GIF")


def _table(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after(data: bytes, at: int) -> int:
    """Where the sub-blocks end that begin at ``at``."""
    while data[at]:
        at += data[at] + 1
    return at + 1


def _webp(data: bytes) -> float:
    at, times = 12, []
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > len(data):
            raise ValueError("it is cut short")
        if kind == b"ANMF":
            times.append(int.from_bytes(data[at + 20 : at + 23], "little") / 1000)
        at += 8 + length + length % 2
    return sum(time or ALONE for time in times) if len(times) > 1 else 0.0
