"""Sizes: how a person says one, and how a model makes it. No torch.

A size is the side of a square, 256, or width and height, 256x192. A card lists the sizes that its model can do, and two
of its fields say how: `upscaler` names the model that makes a picture four times larger, so that a size whose quarter
is listed too is drawn at that quarter; `sheet` says that the network draws one thing in a square, so that a wide or
tall picture is that square, of the shorter side, in the middle of a sheet. A model without `sheet` is asked for the
shape itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from perrin.models import ModelCard

__all__ = ["FACTOR", "Layout", "Size", "channels_of", "layout_of", "pair", "read_size", "size_of"]

Size = str | int
"""As parameters hold it: 256 for a square, ``256x192`` for others."""

FACTOR = 4
"""How much longer an upscaler makes the sides."""

LEAST, MOST = 16, 4096

_SIZE = re.compile(r"(\d{1,4})(?:x(\d{1,4}))?", re.ASCII | re.IGNORECASE)


def size_of(width: int, height: int) -> Size:
    """The one way to write a size."""
    return width if width == height else f"{width}x{height}"


def pair(size: Size) -> tuple[int, int]:
    """Width and height of a size that `read_size` gave."""
    width, _, height = str(size).partition("x")
    return int(width), int(height or width)


def read_size(value: object) -> Size | None:
    """What a person wrote, in the one way to write it; None where it is no size of 16 to 4096 pixels a side."""
    found = _SIZE.fullmatch(str(value).strip()) if isinstance(value, int | str) and value is not True else None
    if found is None:
        return None
    width, height = int(found[1]), int(found[2] or found[1])
    return size_of(width, height) if all(LEAST <= side <= MOST for side in (width, height)) else None


@dataclass(frozen=True)
class Layout:
    """How a picture of a size is made.

    Attributes:
        width, height: of the picture, in pixels.
        drawing: width and height of the part of it that the network draws, in the middle.
        factor: how many pixels of the picture, along a side, one that was sampled becomes: 1 or `FACTOR`.
    """

    width: int
    height: int
    drawing: tuple[int, int]
    factor: int

    @property
    def sampled(self) -> tuple[int, int]:
        """Width and height in pixels of what is sampled."""
        return self.drawing[0] // self.factor, self.drawing[1] // self.factor

    @property
    def middle(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that are drawn; what lies beside them is sheet."""
        left, top = (self.width - self.drawing[0]) // 2, (self.height - self.drawing[1]) // 2
        return slice(top, top + self.drawing[1]), slice(left, left + self.drawing[0])


def layout_of(card: ModelCard, size: Size) -> Layout:
    """How the model of ``card`` makes a picture of one of its sizes."""
    width, height = pair(size)
    side = min(width, height)
    drawing = (side, side) if card.sheet else (width, height)
    quarter = (drawing[0] // FACTOR, drawing[1] // FACTOR)
    exact = (quarter[0] * FACTOR, quarter[1] * FACTOR) == drawing
    return Layout(width, height, drawing, FACTOR if card.upscaler and exact and quarter in card.sizes else 1)


def channels_of(card: ModelCard) -> int:
    """Channels of the pictures of a model: 4 with alpha, 3 without."""
    for name, usual in (("autoencoder", 3), ("unet", 3), ("transformer", 16)):
        if name in card.architecture:
            return int(card.architecture[name].get("channels", usual))
    return 0
