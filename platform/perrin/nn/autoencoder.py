r"""A small convolutional autoencoder with a Gaussian latent, for grids of one, two and three axes.

.. math::
    z = \mu(x) + s(x)\,\varepsilon, \qquad
    L = \|x - \hat x(z)\|_1 + \beta\, KL(\mathcal N(\mu, s^2) \,\|\, \mathcal N(0, 1))

One text for sounds, pictures and volumes. Every level halves the grid. Latents are handed out standardised: `encode`
subtracts the mean and divides by the standard deviation that training measured per channel, so that the diffusion model
sees unit variance.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes (2014); Rombach et al., Latent Diffusion (2022), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.tiling import tiled

__all__ = ["Autoencoder"]


_Conv = type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 8), channels)


class _Unshuffle(nn.Module):
    """Blocks of ``side`` places an axis become channels: (B, C, *grid) to (B, C * side^dims, *grid / side)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        dims = x.ndim - 2
        for axis in range(dims):
            x = x.unflatten(2 + 2 * axis, (-1, self.side))
        order = [0, 1, *(3 + 2 * i for i in range(dims)), *(2 + 2 * i for i in range(dims))]
        return x.permute(order).flatten(1, 1 + dims)


class _Shuffle(_Unshuffle):
    """The other way."""

    def forward(self, x: Tensor) -> Tensor:
        dims = x.ndim - 2
        x = x.unflatten(1, (-1, *[self.side] * dims))
        x = x.permute(0, 1, *(axis for i in range(dims) for axis in (2 + dims + i, 2 + i)))
        for axis in range(dims):
            x = x.flatten(2 + axis, 3 + axis)
        return x


class _Residual(nn.Module):
    def __init__(self, channels: int, conv: _Conv) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = conv(channels, channels, 3, padding=1)
        self.norm2 = _norm(channels)
        self.conv2 = conv(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class Autoencoder(nn.Module):
    """Grids (B, channels, *sides) to latents (B, latent, *sides / f) and back, f = patch * 2^(len(widths) - 1).

    Args:
        channels: of the grid.
        latent: channels of the latent.
        widths: channels at each level, finest first.
        blocks: residual blocks per level; the decoder has one more.
        patch: side of the blocks that become channels before the first level.
        dims: axes of the grid.

    Attributes:
        factor: f.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        channels: int = 3,
        latent: int = 16,
        widths: Sequence[int] = (48, 72, 96),
        blocks: int = 1,
        patch: int = 2,
        dims: int = 2,
    ) -> None:
        super().__init__()
        conv: _Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        inside, halves = channels * patch**dims, 2**dims
        self.channels, self.latent, self.dims = channels, latent, dims
        self.factor = patch * 2 ** (len(widths) - 1)
        down: list[nn.Module] = [_Unshuffle(patch), conv(inside, widths[0], 3, padding=1)]
        for narrow, wide in pairwise(widths):
            down += [_Residual(narrow, conv) for _ in range(blocks)]
            down += [_Unshuffle(2), conv(narrow * halves, wide, 1)]
        down += [_Residual(widths[-1], conv) for _ in range(blocks)]
        down += [_norm(widths[-1]), nn.SiLU(), conv(widths[-1], 2 * latent, 1)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [conv(latent, widths[-1], 3, padding=1)]
        for wide, narrow in pairwise(widths[::-1]):
            up += [_Residual(wide, conv) for _ in range(blocks + 1)]
            up += [conv(wide, narrow * halves, 1), _Shuffle(2)]
        up += [_Residual(widths[0], conv) for _ in range(blocks + 1)]
        up += [_norm(widths[0]), nn.SiLU(), conv(widths[0], inside, 3, padding=1)]
        self.decoder = nn.Sequential(*up, _Shuffle(patch))
        self.register_buffer("latent_mean", torch.zeros(latent))
        self.register_buffer("latent_std", torch.ones(latent))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, each (B, latent, h, w), not standardised."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction, mean, log-variance), with a sampled latent in training and the mean otherwise."""
        mean, log_variance = self.moments(x)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else mean
        return self.decoder(z), mean, log_variance

    def encode(self, x: Tensor) -> Tensor:
        """Standardised latents of grids in [-1, 1]."""
        return (self.moments(x)[0] - self._wide(self.latent_mean, x)) / self._wide(self.latent_std, x)

    def decode(self, z: Tensor, tile: int = 0, overlap: int = 2) -> Tensor:
        """Grids, about [-1, 1], of standardised latents.

        Args:
            z: (B, latent, *sides).
            tile: decode in tiles of this side, for latents that are too large for the memory; 0: whole.
            overlap: latents that two tiles share, in which one fades into the other.
        """
        z = z * self._wide(self.latent_std, z) + self._wide(self.latent_mean, z)
        return tiled(self.decoder, z, self.factor, tile, overlap) if tile else cast(Tensor, self.decoder(z))

    @staticmethod
    def _wide(values: Tensor, like: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (like.ndim - 2))
