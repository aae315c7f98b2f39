"""A picture is drawn at 256, cropped to what is visible, and fitted into 64x64 with a margin of 2; larger ones alike,
drawn at twice their side.

Downsampling is Lanczos on premultiplied alpha, so no dark or light fringe appears at an edge; the stored array is
straight alpha again.
"""

from __future__ import annotations

import io
import re
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perrin.errors import InvalidInput

__all__ = [
    "CANVAS",
    "MARGIN",
    "SIZE",
    "fit",
    "premultiplied",
    "render_image",
    "render_svg",
    "resize",
    "straight",
    "visible_box",
]

SIZE = 64
MARGIN = 2
"""In a picture of SIZE; in larger ones as much larger."""
CANVAS = 256
_ALPHA_VISIBLE = 8

Pixels: TypeAlias = NDArray[np.uint8]


def render_svg(svg: str, *, smallest_share: float = 0.0, size: int = SIZE) -> Pixels:
    """Draw an SVG document.

    Args:
        svg: a whole document, with a viewBox or width and height.
        smallest_share: content smaller than this share of the canvas keeps its relative size instead of being blown
            up to the full square.
        size: side of the result, a multiple of SIZE.

    Returns:
        uint8 [size, size, 4], straight alpha.

    Raises:
        InvalidInput: the document cannot be read, or nothing visible is drawn.
    """
    import resvg_py

    canvas = max(CANVAS, 2 * size)
    image = _draw(resvg_py, svg, canvas)
    left, top, right, bottom = visible_box(image)
    side = max(right - left, bottom - top)
    if side < canvas // 2 and smallest_share * canvas < side:
        image = _draw(resvg_py, svg, min(2048, canvas * canvas // side))
    return fit(image, smallest_share=smallest_share, size=size)


def _draw(resvg_py: object, svg: str, width: int) -> Pixels:
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg, width=width, dpi=96, skip_system_fonts=True)  # type: ignore[attr-defined]
        return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGBA"))
    except Exception as error:  # the renderer raises several of its own kinds
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise InvalidInput("svg", reason, "a drawing that resvg renders") from error


def render_image(data: bytes, *, size: int = SIZE) -> Pixels:
    """Decode a PNG or WebP with alpha and fit it as `render_svg` does: uint8 [size, size, 4]. Raises InvalidInput where
    it is unreadable."""
    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except OSError as error:
        raise InvalidInput("data", str(error), "a PNG or WebP file") from error
    return fit(np.asarray(image), size=size)


def visible_box(pixels: Pixels) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the pixels with visible alpha. Raises InvalidInput where there are
    none."""
    seen = pixels[..., 3] > _ALPHA_VISIBLE
    columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
    if len(columns) == 0:
        raise InvalidInput("pixels", "an empty picture", "at least one visible pixel")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def premultiplied(pixels: Pixels) -> NDArray[np.float32]:
    """Float32 [..., 4] in 0..1, colour multiplied by alpha."""
    values: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    values[..., :3] *= values[..., 3:]
    return values


def resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Premultiplied float32 [H, W, 4] at another (width, height), by Lanczos; edges may ring out of 0..1."""
    planes = [Image.fromarray(np.ascontiguousarray(values[..., c])) for c in range(4)]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.LANCZOS)) for plane in planes], axis=-1)


def fit(pixels: Pixels, *, smallest_share: float = 0.0, size: int = SIZE) -> Pixels:
    """Crop to the visible box, scale it into the square less its margins, centre it: [H, W, 4] -> [size, size, 4], both
    uint8 straight alpha."""
    left, top, right, bottom = visible_box(pixels)
    values = premultiplied(pixels[top:bottom, left:right])
    height, width = values.shape[:2]
    room = size - 2 * MARGIN * size // SIZE
    scale = room / max(height, width, smallest_share * max(pixels.shape[:2]))
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.zeros((size, size, 4), np.float32)
    x, y = (size - wide) // 2, (size - high) // 2
    canvas[y : y + high, x : x + wide] = resize(values, (wide, high))
    return straight(canvas)


def straight(values: NDArray[np.float32]) -> Pixels:
    """Premultiplied float32 [..., 4] to uint8 with straight alpha; undoes `premultiplied`."""
    alpha = values[..., 3:].clip(0, 1)
    colour = np.divide(values[..., :3], alpha, out=np.zeros_like(values[..., :3]), where=alpha > 1 / 512)
    result: Pixels = np.rint(np.concatenate([colour.clip(0, 1), alpha], axis=-1) * 255).astype(np.uint8)
    return result
