"""From what was decoded to the picture asked for: enlarged, on its sheet or tile and background, kept parts put back.

What is decoded is as large as it was sampled. A size that the model does not draw itself is made by its upscaler, one
item at a time, each with its own seed, so that an item is the same whatever it is made beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from perrin.inputs import InputFile
from perrin.picture_files import cut_out, detail, read_picture
from perrin.pictures import Pixels, on, over, to_pixels, transparent
from perrin_image.face import ImageParameters
from perrin_image.painting import FADE, Canvas
from perrin_image.sizes import FACTOR, Layout
from perrin_image.tiles import repeat
from perrin_image.upscaling import Upscaler

__all__ = ["Finish"]


@dataclass(frozen=True)
class Finish:
    """What is left to do for a request.

    Attributes:
        parameters: resolved ones.
        layout: of the picture.
        canvas: what the request begins with, if it has a picture.
        upscaler: makes pictures larger, where the layout wants it.
    """

    parameters: ImageParameters
    layout: Layout
    canvas: Canvas | None = None
    upscaler: Upscaler | None = None

    def as_sampled(self, decoded: Tensor) -> list[Pixels]:
        """The pictures of (B, 4, h, w) in [-1, 1] that need no enlarging."""
        return [self._complete(on(picture, self.parameters.background)) for picture in to_pixels(decoded)]

    def enlarged(self, decoded: Tensor) -> Iterator[Pixels]:
        """One after the other, four times as large."""
        assert self.upscaler is not None
        decoded = decoded.cpu()
        if self.canvas is not None and self.canvas.keeps:  # so that it sees what it is to continue
            decoded = decoded + (self.canvas.sampled(self.layout) - decoded) * self.canvas.kept(self.layout)
        for number, picture in enumerate(to_pixels(decoded)):
            large = self.upscaler.enlarge(transparent(picture)[None], self._seed(number))[0]
            yield self._complete(over(large, self.parameters.background))

    def tiles(self, decoded: Tensor) -> Iterator[Pixels]:
        """Tiles of two drawings each, of (2B, 4, h, w): first all the first ones."""
        drawings = [transparent(picture) for picture in to_pixels(decoded)]
        for number in range(self.parameters.count):
            two = (drawings[number], drawings[number + self.parameters.count])
            if self.upscaler is not None and self.layout.factor > 1:
                seed = self._seed(number)
                two = (self.upscaler.enlarge(two[0][None], seed)[0], self.upscaler.enlarge(two[1][None], seed)[0])
            yield over(repeat(two, self.layout.width, self.layout.height), self.parameters.background)

    def rings(self, decoded: Tensor) -> Iterator[Pixels]:
        """Pictures that repeat as they were sampled, four times as large."""
        assert self.upscaler is not None
        for number, picture in enumerate(to_pixels(decoded)):
            large = self.upscaler.enlarge_tile(transparent(picture), self._seed(number))
            yield over(large, self.parameters.background)

    def given(self, file: InputFile) -> Iterator[Pixels]:
        """The picture in ``file`` itself, fitted to the size; by the upscaler, where it has too few pixels for it.

        It is enlarged from its own pixels, or from a quarter of the size where it has fewer even than that, and what
        is then too large is shrunk.
        """
        width, height = self.layout.width, self.layout.height
        scale = detail("image", file, self.layout.drawing)
        for number in range(self.parameters.count):
            if self.upscaler is None or scale >= 1:
                picture = read_picture("image", file, width, height, self.layout.drawing)
            else:
                part = max(1 / FACTOR, scale)
                sides = (int(side * part) // FACTOR * FACTOR for side in (width, height, *self.layout.drawing))
                wide, high, *cover = sides
                small = read_picture("image", file, wide, high, (cover[0], cover[1]))
                large = self.upscaler.enlarge(cut_out(small)[None], self._seed(number))[0]
                large = over(large, "white") if small[..., 3].min() == 255 else large
                picture = np.asarray(
                    Image.fromarray(large).convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)
                )
            yield over(picture, self.parameters.background)

    def _seed(self, number: int) -> int:
        return int(self.parameters.item(number)["seed"])

    def _complete(self, drawn: Pixels) -> Pixels:
        """A drawing on its background, with the sheet around it and the kept parts put back."""
        background, canvas = self.parameters.background, self.canvas
        if drawn.shape[:2] != (self.layout.height, self.layout.width):
            empty = np.zeros((self.layout.height, self.layout.width, 4), np.uint8)
            begun = canvas is not None and self.parameters.strength != 1
            sheet = over(canvas.guide if canvas is not None and begun else empty, background).copy()
            sheet[self.layout.middle] = drawn
            drawn = sheet
        if canvas is None or not canvas.keeps:
            return drawn
        return canvas.composite(drawn, background, FADE * self.layout.factor)
