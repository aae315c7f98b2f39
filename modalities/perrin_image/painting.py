"""Painting into a picture: what is given, what of it is kept, and the kept pixels put back bit for bit.

A request with a picture has a `Canvas`: the picture fitted to the size, and where to paint. While sampling, the kept
part guides the run as latents (`Canvas.kept`); afterwards `Canvas.composite` lays the picture's own pixels over the
result wherever nothing was to be painted. On the painted side of the border one fades into the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.picture_files import cut_out, read_mask, read_picture
from perrin.pictures import Pixels, over, to_tensor
from perrin_image.face import ImageParameters
from perrin_image.sizes import Layout

__all__ = ["FADE", "Canvas", "canvas_of"]

FADE = 2
"""Pixels of a sample to each side that a painted pixel looks at, to see how near the border is."""


@dataclass(frozen=True)
class Canvas:
    """A picture that a request begins with.

    Attributes:
        pixels: uint8 (H, W, 4), straight alpha; what is kept of it comes back.
        guide: uint8 (H, W, 4), the same for the model: cut out of white paper; around a picture that was made smaller
            its edge goes on.
        paint: bool (H, W), True where to paint.
    """

    pixels: Pixels
    guide: Pixels
    paint: npt.NDArray[np.bool_]

    @property
    def keeps(self) -> bool:
        """Whether any pixel is kept."""
        return not bool(self.paint.all())

    def sampled(self, layout: Layout) -> Tensor:
        """(1, 4, h, w) in [-1, 1]: the part of the guide that the network draws, as large as it is sampled."""
        return F.avg_pool2d(to_tensor(self.guide[layout.middle].copy()[None]), layout.factor)

    def kept(self, layout: Layout, factor: int = 1) -> Tensor:
        """(1, 1, h / factor, w / factor): how much of what is sampled at each place is kept, 0 to 1.

        Args:
            layout: of the picture.
            factor: pixels of the sample, along a side, at one place.
        """
        keep = torch.from_numpy(~self.paint[layout.middle]).float()[None, None]
        return F.avg_pool2d(keep, factor * layout.factor)

    def composite(self, painted: Pixels, background: str, fade: int = FADE) -> Pixels:
        """``painted`` (H, W, 3 or 4), which is over ``background`` already, with the kept pixels of this picture."""
        before = over(self.guide, background).astype(np.float32)
        mixed = (before + (painted - before) * self._fade(fade)[..., None]).round().astype(np.uint8)
        return np.where(self.paint[..., None], mixed, over(self.pixels, background))

    def _fade(self, reach: int) -> npt.NDArray[np.float32]:
        """Weight of what was painted: less at the border, whole where the painted part is thin or nothing was there."""
        side = 2 * reach + 1
        paint = torch.from_numpy(self.paint).float()[None, None]
        share = F.avg_pool2d(F.pad(paint, (reach,) * 4, mode="replicate"), side, 1)
        weight: npt.NDArray[np.float32] = (share / F.max_pool2d(share, side, 1, reach).clamp(min=1e-6))[0, 0].numpy()
        return np.where(self.guide[..., 3] == 0, np.float32(1), weight)


def canvas_of(
    parameters: ImageParameters, inputs: Mapping[str, InputFile], layout: Layout, clear: bool = True
) -> Canvas | None:
    """The canvas of a resolved request; None for one without a picture.

    Args:
        parameters: of the request.
        inputs: its files.
        layout: of what is made; on a sheet the picture covers what is drawn, and more of the sheet as far as it goes.
        clear: the model knows transparency; to one that does not, white paper is part of the picture.

    Raises:
        InvalidInput: the picture or the mask cannot be read, or the mask leaves nothing to paint.
    """
    if "image" not in inputs:
        return None
    edge = parameters.expand
    width, height = layout.width - 2 * edge, layout.height - 2 * edge
    cover = (layout.drawing[0] - 2 * edge, layout.drawing[1] - 2 * edge)
    picture = read_picture("image", inputs["image"], width, height, cover)
    guide = cut_out(picture) if clear else picture
    paint = guide[..., 3] == 0 if edge else np.ones((height, width), bool)
    if "mask" in inputs:
        paint = read_mask("mask", inputs["mask"], width, height, cover)
        if not paint.any():
            raise InvalidInput("mask", "a mask without white", "white where to paint; what is black is kept")
    if parameters.strength == 0:
        paint = np.zeros_like(paint)
    paint = np.pad(paint, edge, constant_values=True)
    rim = ((edge, edge), (edge, edge), (0, 0))
    return Canvas(np.pad(picture, rim), np.pad(guide, rim, mode="edge"), paint)
