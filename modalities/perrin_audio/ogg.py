"""Ogg pages with a serial number that follows from what is in them, where libsndfile draws one by the time of day.

References:
    RFC 3533, section 6 (the page, and its checksum).
"""

from __future__ import annotations

import struct
import zlib

__all__ = ["renumbered"]

_SERIAL, _CHECKSUM, _SEGMENTS, _HEADER = 14, 22, 26, 27


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return table


def renumbered(data: bytes) -> bytes:
    """``data`` with the CRC-32 of its pages' contents as their serial number, and their checksums again."""
    pages, at = [], 0
    while at < len(data):
        lacing = data[at + _HEADER : at + _HEADER + data[at + _SEGMENTS]]
        length = _HEADER + len(lacing) + sum(lacing)
        pages.append(bytearray(data[at : at + length]))
        at += length
    serial = zlib.crc32(b"".join(bytes(page[_HEADER:]) for page in pages))
    table = _table()
    for page in pages:
        struct.pack_into("<I", page, _SERIAL, serial)
        struct.pack_into("<I", page, _CHECKSUM, 0)
        checksum = 0
        for byte in page:
            checksum = ((checksum << 8) & 0xFFFFFFFF) ^ table[(checksum >> 24) ^ byte]
        struct.pack_into("<I", page, _CHECKSUM, checksum)
    return b"".join(map(bytes, pages))
