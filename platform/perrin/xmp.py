"""How a result was made, inside files that have no text chunks of their own: an XMP packet in a JPEG or a WebP.

The metadata is JSON in the property ``perrin:made``; the prompt is repeated as ``dc:description``, which picture
viewers show. The JSON is ASCII, so that nothing in it is beyond what XML may hold. Reading looks for the property's
own tags and runs no XML parser, which a stranger's file could make work for hours.

References:
    ISO 16684-1 (XMP); Adobe, XMP Specification Part 3 (2020), section 1.1.3 for JPEG; Google, WebP Container
    Specification, for the chunk "XMP ".
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, unescape

__all__ = ["packet", "packet_json", "read_jpeg", "read_webp"]

_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OPEN, _CLOSE = b"<perrin:made>", b"</perrin:made>"

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:perrin="urn:perrin">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<perrin:made>{made}</perrin:made>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def packet(metadata: Mapping[str, Any], description: str, software: str) -> bytes:
    """The XMP packet of a file.

    Args:
        metadata: anything JSON holds.
        description: what viewers show.
        software: name and version.
    """
    made = json.dumps(metadata, sort_keys=True)
    return _PACKET.format(
        description=escape(_legal(description)), software=escape(_legal(software)), made=escape(made)
    ).encode()


def read_jpeg(data: bytes) -> str | None:
    """The JSON in a JPEG, or None.

    Raises:
        ValueError: the file is cut short.
    """
    for kind, body in _segments(data):
        if kind == 0xE1 and body.startswith(_JPEG):
            return packet_json(body)
    return None


def read_webp(data: bytes) -> str | None:
    """The JSON in a WebP, or None.

    Raises:
        ValueError: the file is cut short.
    """
    for kind, body in _chunks(data):
        if kind == b"XMP ":
            return packet_json(body)
    return None


def packet_json(body: bytes) -> str | None:
    """The JSON in a packet, which may begin and end anywhere in ``body``; None where there is none."""
    _, found, rest = body.partition(_OPEN)
    text, closed, _ = rest.partition(_CLOSE)
    return unescape(text.decode()) if found and closed else None


def _legal(text: str) -> str:
    """``text`` without what XML 1.0 may not hold."""
    return _ILLEGAL.sub("", text)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments before the picture itself."""
    at = 2
    while at + 4 <= len(data):
        mark, kind, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ValueError("a segment does not begin where it should")
        body = data[at + 4 : at + 2 + length]
        if len(body) < length - 2:
            break
        if kind == 0xDA:
            return
        yield kind, body
        at += 2 + length
    raise ValueError("it is cut short")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    (size,) = struct.unpack_from("<I", data, 4)
    end, at = size + 8, 12
    if len(data) < end:
        raise ValueError("it is cut short")
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
