"""What a sound file says of itself: the comment of a WAV's INFO list, and Vorbis comments in FLAC and Ogg.

The comment is JSON, ``{"perrin": {...}}``, so that other programs show it and keep it.

References:
    Microsoft and IBM, Multimedia Programming Interface 1.0 (1991), RIFF's INFO list; RFC 9639, section 8.6 (FLAC);
    RFC 3533 (Ogg pages); Xiph.Org, Vorbis I, section 5.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

__all__ = ["commented", "read_flac", "read_ogg", "read_wav"]

_INFO, _COMMENT = b"LIST", b"ICMT"
_VORBIS_COMMENT = 4
_MOST_PACKETS = 3


def commented(wav: bytes, comment: str) -> bytes:
    """A WAV file with a comment after its samples."""
    text = comment.encode() + b"\0"
    body = b"INFO" + _COMMENT + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    whole = wav + b"\0" * (len(wav) % 2) + _INFO + struct.pack("<I", len(body)) + body
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def read_wav(data: bytes) -> str | None:
    """The JSON text in the comment of a WAV file."""
    for kind, body in _chunks(data, 12):
        if kind == _INFO and body[:4] == b"INFO":
            for name, text in _chunks(body, 4):
                if name == _COMMENT:
                    return _made(text.rstrip(b"\0").decode("utf-8"))
    return None


def read_flac(data: bytes) -> str | None:
    """The JSON text in the comment of a FLAC file."""
    at, last = 4, False
    while not last:
        if at + 4 > len(data):
            raise ValueError("it is cut short")
        (word,) = struct.unpack_from(">I", data, at)
        last, kind, length = bool(word >> 31), word >> 24 & 0x7F, word & 0xFFFFFF
        if kind == _VORBIS_COMMENT:
            return _comment(data[at + 4 : at + 4 + length])
        at += 4 + length
    return None


def read_ogg(data: bytes) -> str | None:
    """The JSON text in the comment of an Ogg file of Vorbis or Opus."""
    for number, packet in enumerate(_packets(data)):
        for mark in (b"\x03vorbis", b"OpusTags"):
            if packet.startswith(mark):
                return _comment(packet[len(mark) :])
        if number >= _MOST_PACKETS:
            break
    return None


def _made(text: str) -> str | None:
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return json.dumps(said["perrin"]) if isinstance(said, dict) and "perrin" in said else None


def _chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise ValueError("it is cut short")
        yield kind, body
        at += 8 + length + length % 2


def _comment(body: bytes) -> str | None:
    """Of a Vorbis comment: a vendor, and lines of NAME=text."""
    (length,) = struct.unpack_from("<I", body, 0)
    at = 4 + length
    (count,) = struct.unpack_from("<I", body, at)
    at += 4
    for _ in range(min(count, 1000)):
        (length,) = struct.unpack_from("<I", body, at)
        name, found, text = body[at + 4 : at + 4 + length].decode("utf-8").partition("=")
        if found and name.upper() in {"COMMENT", "DESCRIPTION"} and (made := _made(text)) is not None:
            return made
        at += 4 + length
    return None


def _packets(data: bytes) -> Iterator[bytes]:
    """Of an Ogg file with one stream: a packet ends with a segment shorter than 255 bytes."""
    at, packet = 0, b""
    while at + 27 <= len(data) and data[at : at + 4] == b"OggS":
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            packet += data[at : at + size]
            at += size
            if size < 255:
                yield packet
                packet = b""
