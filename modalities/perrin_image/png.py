"""PNG files that carry everything needed to make them again, and the same bytes for the same picture.

The metadata is JSON in an iTXt chunk with the keyword ``perrin``; the prompt is repeated under ``Description``, which
picture viewers show.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

__all__ = ["write_png"]


def write_png(pixels: npt.NDArray[np.uint8], metadata: Mapping[str, Any] | None = None) -> bytes:
    """Encode ``pixels`` (H, W, 3 or 4), with ``metadata`` if there is any."""
    info = PngInfo()
    if metadata:
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
        info.add_itxt("perrin", text, zip=False)
        prompt = metadata.get("parameters", {}).get("prompt")
        if prompt:
            info.add_itxt("Description", prompt)
        info.add_text("Software", f"Perrin {metadata.get('perrin', '')}".strip())
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info, compress_level=6)
    return stream.getvalue()
