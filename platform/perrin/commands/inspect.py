"""``perrin inspect``: what a file says about how it was made.

Every result carries model, hashes and parameters. `READERS` lists how to find them in a file, by its kind.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from perrin.clip_notes import read_gif, read_mp4, read_webm, read_zip
from perrin.errors import InvalidInput, NotFound
from perrin.media import sniff
from perrin.shape_notes import read_glb, read_ply, read_stl, read_text
from perrin.tags import read_flac, read_ogg, read_wav
from perrin.xmp import read_jpeg, read_webp

__all__ = ["READERS", "inspect", "read_metadata"]

KEYWORD = b"perrin"
PNG = b"\x89PNG\r\n\x1a\n"
TEXT_LIMIT = 2**24
"""No text chunk is unpacked beyond this many bytes."""


def inspect(
    file: Annotated[Path, typer.Argument(help="A file that Perrin made.", metavar="FILE", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how a file was made: model, hashes, seed and every parameter."""
    metadata = read_metadata(file)
    if as_json:
        print(json.dumps(metadata, indent=2, ensure_ascii=False))
        return
    parameters = metadata.pop("parameters", {})
    for name, value in [*metadata.items(), *((f"  {k}", v) for k, v in parameters.items() if v is not None)]:
        print(f"{name:<14} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


def read_metadata(file: Path) -> dict[str, Any]:
    """The metadata in a file.

    Raises:
        NotFound: there is no such file, or nothing in it.
        InvalidInput: it is of a kind that cannot be read, or broken.
    """
    try:
        data = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"{file}: no such file") from None
    media_type = sniff(data)
    found = READERS.get(media_type)
    if found is None or (media_type == "text/plain" and not data.startswith(b"#")):
        raise InvalidInput("file", str(file), "a " + " or ".join(kind for kind, _ in READERS.values()) + " file")
    kind, reader = found
    try:
        text = reader(data)
        metadata = None if text is None else json.loads(text)
    except (ValueError, struct.error, zlib.error) as error:
        raise InvalidInput("file", str(file), f"a whole {kind}: {error}") from None
    if not isinstance(metadata, dict):
        raise NotFound(f"{file}: a {kind}, but nothing in it says how Perrin made it")
    return metadata


def _read_png(data: bytes) -> str | None:
    """The text under the keyword ``perrin``, from a tEXt, zTXt or iTXt chunk (PNG specification, section 11.3.4)."""
    for kind, body in _png_chunks(data):
        keyword, found, rest = body.partition(b"\0")
        if kind not in {b"tEXt", b"zTXt", b"iTXt"} or keyword != KEYWORD or not found:
            continue
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"zTXt":
            return _unpacked(rest[1:]).decode("latin-1")
        packed = rest[:1] == b"\1"
        text = rest[2:].split(b"\0", 2)[-1]  # after language tag and translated keyword
        return (_unpacked(text) if packed else text).decode("utf-8")
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(data) < at + 12 + length:
            raise ValueError("it is cut short")
        (stated,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(kind + body) != stated:
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        yield kind, body
        at += 12 + length
        if kind == b"IEND":
            return
    raise ValueError("it is cut short")


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, TEXT_LIMIT)


READERS: dict[str, tuple[str, Callable[[bytes], str | None]]] = {
    "image/png": ("PNG", _read_png),
    "image/webp": ("WebP", read_webp),
    "image/jpeg": ("JPEG", read_jpeg),
    "audio/wav": ("WAV", read_wav),
    "audio/flac": ("FLAC", read_flac),
    "audio/ogg": ("Ogg", read_ogg),
    "image/gif": ("GIF", read_gif),
    "video/mp4": ("MP4", read_mp4),
    "video/webm": ("WebM", read_webm),
    "application/zip": ("ZIP of frames", read_zip),
    "model/ply": ("PLY", read_ply),
    "model/gltf-binary": ("GLB", read_glb),
    "model/stl": ("STL", read_stl),
    "text/plain": ("OBJ", read_text),
}
"""Media type -> (name of the kind, reader of the JSON text)."""
