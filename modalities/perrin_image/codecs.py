"""What is between a sample and a picture: an autoencoder, or nothing. Either way a picture has four channels.

A model that knows no transparency has three; its pictures are opaque. A latent that is larger than the autoencoder was
trained on is decoded in tiles, which overlap: memory stays that of a tile, and the norms see a field of about the
extent that they are used to.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from perrin.nn import Autoencoder
from perrin.nn.circular import circular
from perrin.pictures import CHANNELS

__all__ = ["Codec", "Latents", "Plain"]

WHOLE = 2
"""So many times the trained side is still decoded whole; tiles have that side."""

OVERLAP = 4
"""Neighbouring tiles share one part in so many."""


def _fitted(x: Tensor, channels: int) -> Tensor:
    """(B, 4, H, W) with as many channels as the model has."""
    return x[:, :channels]


def _whole(x: Tensor) -> Tensor:
    """(B, 3 or 4, H, W) with an alpha."""
    return x if x.shape[1] == CHANNELS else torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


class Plain(nn.Module):
    """No codec: the sample is the picture.

    Args:
        channels: 3 or 4.

    Attributes:
        factor: pixels, along a side, of one place of a sample.
        latent: channels of a sample.
    """

    factor = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.latent = channels

    def encode(self, x: Tensor) -> Tensor:
        """Samples of pictures (B, 4, H, W) in [-1, 1]."""
        return _fitted(x, self.latent)

    def decode(self, z: Tensor, ring: bool = False) -> Tensor:
        """Pictures (B, 4, H, W), about [-1, 1]."""
        return _whole(z)


class Latents(nn.Module):
    """An autoencoder as a codec.

    Args:
        network: with 3 or 4 channels.
        trained: shorter side in pixels of the pictures that it was trained on.

    Attributes:
        factor, latent: as of `Plain`.
        tile: side of a tile in latents.
    """

    def __init__(self, network: Autoencoder, trained: int) -> None:
        super().__init__()
        self.network = network
        self.factor, self.latent = network.factor, network.latent
        self.tile = WHOLE * trained // network.factor

    def encode(self, x: Tensor) -> Tensor:
        """As of `Plain`."""
        return self.network.encode(_fitted(x, self.network.channels))

    def decode(self, z: Tensor, ring: bool = False) -> Tensor:
        """As of `Plain`; with ``ring``, so that the sides of a picture meet their opposites."""
        large = max(z.shape[2:]) > self.tile and not ring
        with circular(self.network) if ring else nullcontext():
            return _whole(self.network.decode(z, self.tile if large else 0, self.tile // OVERLAP))


Codec = Plain | Latents
