"""Picture files that carry everything needed to make them again, and the same bytes for the same picture.

PNG and WebP keep every pixel. In a PNG the metadata is JSON in an iTXt chunk with the keyword ``perrin``, and the
prompt is repeated under ``Description``, which picture viewers show; WebP and JPEG have both as XMP (`perrin.xmp`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from perrin.pictures import Pixels
from perrin.xmp import packet

__all__ = ["write", "write_png"]

JPEG_QUALITY = 95


def write(pixels: Pixels, media_type: str, metadata: Mapping[str, Any]) -> bytes:
    """Encode ``pixels`` (H, W, 3 or 4) with their metadata; a JPEG takes three channels."""
    if media_type == "image/png":
        return write_png(pixels, metadata)
    xmp = packet(metadata, _prompt(metadata), _software(metadata))
    stream, image = io.BytesIO(), Image.fromarray(pixels)
    if media_type == "image/webp":
        image.save(stream, "WEBP", lossless=True, xmp=xmp)
    else:
        image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True, xmp=xmp)
    return stream.getvalue()


def write_png(pixels: Pixels, metadata: Mapping[str, Any] | None = None) -> bytes:
    """Encode ``pixels`` (H, W, 3 or 4), with ``metadata`` if there is any."""
    info = PngInfo()
    if metadata:
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
        info.add_itxt("perrin", text, zip=False)
        if prompt := _prompt(metadata):
            info.add_itxt("Description", prompt)
        info.add_text("Software", _software(metadata))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info, compress_level=6)
    return stream.getvalue()


def _prompt(metadata: Mapping[str, Any]) -> str:
    return metadata.get("parameters", {}).get("prompt") or ""


def _software(metadata: Mapping[str, Any]) -> str:
    return f"Perrin {metadata.get('perrin', '')}".strip()
