"""A tile of drawings that repeats without a seam: a half-drop repeat, as printed on cloth and wallpaper.

A model that draws one thing in the middle of a sheet has nothing to let run over an edge. So a tile is laid out from
two of its drawings: one at a quarter of the width and height, the other at three quarters of both, and what runs over
an edge goes on at the opposite one. Each is scaled so that its circle just leaves the circles of its neighbours free.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from perrin.errors import Degenerate
from perrin.pictures import Pixels

__all__ = ["OTHER", "repeat"]

OTHER = 2**52
"""Added to an item's seed, below 2^53, for its second drawing."""

AIR = 0.92
"""Part of the room between neighbours that drawings fill."""

SEEN = 16
"""An alpha of at least so much, of 255, belongs to a drawing."""


def repeat(drawings: tuple[Pixels, Pixels], width: int, height: int) -> Pixels:
    """A tile (height, width, 4) of two transparent drawings (h, w, 4); all with straight alpha.

    Raises:
        Degenerate: a drawing is empty.
    """
    tile = np.zeros((height, width, 4), np.float32)
    room = AIR * min(width, height, math.hypot(width, height) / 2) / 2
    for drawing, place in zip(drawings, (0.25, 0.75), strict=True):
        layer = _wrapped(_scaled(drawing, room), width, height, place).astype(np.float32) / 255
        above, below = layer[..., 3:], tile[..., 3:]
        alpha = above + below * (1 - above)
        colour = layer[..., :3] * above + tile[..., :3] * below * (1 - above)
        tile = np.concatenate([colour / np.maximum(alpha, 1e-6), alpha], axis=-1)
    made: Pixels = (tile * 255).round().astype(np.uint8)
    return made


def _scaled(drawing: Pixels, room: float) -> Pixels:
    """What is drawn, cut out, no further than ``room`` pixels from the middle of its box; never enlarged."""
    seen = drawing[..., 3] >= SEEN
    if not seen.any():
        raise Degenerate("the picture is empty, transparent all over; try another seed, prompt or less guidance")
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = np.nonzero(box[..., 3] >= SEEN)
    radius = float(np.hypot(y - (box.shape[0] - 1) / 2, x - (box.shape[1] - 1) / 2).max()) + 0.5
    scale = min(1.0, room / radius)
    size = (max(1, round(box.shape[1] * scale)), max(1, round(box.shape[0] * scale)))
    return np.asarray(Image.fromarray(box).resize(size, Image.Resampling.LANCZOS))


def _wrapped(drawing: Pixels, width: int, height: int, place: float) -> Pixels:
    """``drawing`` on an empty tile, its middle at ``place`` of the width and height; what stands over comes back in."""
    tile = np.zeros((height, width, 4), np.uint8)
    tile[: drawing.shape[0], : drawing.shape[1]] = drawing
    down, right = round(place * height - drawing.shape[0] / 2), round(place * width - drawing.shape[1] / 2)
    return np.roll(tile, (down, right), axis=(0, 1))
