"""What a file is, told by its bytes and never by its name.

Text has no mark of its own: whatever is UTF-8 without control characters is ``text/plain``, an SDF or an OBJ too, and
who reads it finds out the rest.
"""

from __future__ import annotations

import re

__all__ = ["sniff"]

UNKNOWN, TEXT = "application/octet-stream", "text/plain"

# First bytes, with dots for those that vary.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"(?:II\*\0|MM\0\*)", "image/tiff"),
    (rb"BM....\0\0\0\0", "image/bmp"),
    (rb"P[14]\s", "image/x-portable-bitmap"),
    (rb"P[25]\s", "image/x-portable-graymap"),
    (rb"P[36]\s", "image/x-portable-pixmap"),
    (rb"....ftypavi[fs]", "image/avif"),
    (rb"....ftyp(?:heic|heix|mif1)", "image/heic"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"fLaC", "audio/flac"),
    (rb"OggS.{24,60}(?:OpusHead|\x01vorbis|\x7fFLAC)", "audio/ogg"),
    (rb"(?:ID3|\xff[\xfb\xf3\xf2\xfa])", "audio/mpeg"),
    (rb"....ftypM4A", "audio/mp4"),
    (rb"....ftypqt", "video/quicktime"),
    (rb"....ftyp", "video/mp4"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "video/webm"),
    (rb"\x1aE\xdf\xa3.{0,60}matroska", "video/x-matroska"),
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"glTF[\x01\x02]\0\0\0", "model/gltf-binary"),
    (rb"ply\r?\n", "model/ply"),
    (rb"solid [^\n]*\n\s*facet", "model/stl"),
    (rb"\x93NUMPY", "application/x-npy"),
    (rb"%PDF-", "application/pdf"),
    (rb"PK\x03\x04", "application/zip"),
)

_TYPES = tuple((re.compile(mark, re.DOTALL), media_type) for mark, media_type in _MARKS)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def sniff(data: bytes) -> str:
    """The media type of ``data``."""
    for mark, media_type in _TYPES:
        if mark.match(data[:256]):
            return media_type
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "model/stl"  # the binary kind has no mark, only this arithmetic
    if _CONTROL.search(data):
        return UNKNOWN
    try:
        data.decode()
    except UnicodeDecodeError:
        return UNKNOWN
    return TEXT
