"""Features of pictures: EfficientNet-Lite0, trained on ImageNet, up to the last block.

A picture, scaled to 128x128 by Pillow's bicubic kernel, becomes the mean over space of the last block's 320 channels;
the 1,280 of the layer after it would want more pictures than there are for a covariance of full rank. Distances in
these features can be compared with each other, not with those published in Inception's.
"""

from __future__ import annotations

from torch import Tensor

from perrin.nn.pictures import PictureNetwork

__all__ = ["NAME", "Features"]

NAME = "efficientnet-lite0, last block, 320 channels, 128x128 bicubic"
"""What a score in these features says of them."""


class Features(PictureNetwork):
    """Colours (B, 3 or more, H, W) in [-1, 1] to (B, 320)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class; the values need not be rounded to pixels.

        Raises:
            InvalidInput: no pictures.
        """
        return super().forward(x).mean((2, 3))
