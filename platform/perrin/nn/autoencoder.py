r"""A small convolutional autoencoder with a Gaussian latent, for pictures and other grids.

.. math::
    z = \mu(x) + s(x)\,\varepsilon, \qquad
    L = \|x - \hat x(z)\|_1 + \beta\, KL(\mathcal N(\mu, s^2) \,\|\, \mathcal N(0, 1))

Every level halves the grid. Latents are handed out standardised: `encode` subtracts the mean and divides by the
standard deviation that training measured per channel, so that the diffusion model sees unit variance.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes (2014); Rombach et al., Latent Diffusion (2022), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Autoencoder"]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 8), channels)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class Autoencoder(nn.Module):
    """Pictures (B, channels, H, W) to latents (B, latent, H / f, W / f) and back, f = patch * 2^(len(widths) - 1).

    Args:
        channels: of the picture.
        latent: channels of the latent.
        widths: channels at each level, finest first.
        blocks: residual blocks per level; the decoder has one more.
        patch: side of the pixel blocks that become channels before the first level.
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
    ) -> None:
        super().__init__()
        self.channels, self.latent, self.factor = channels, latent, patch * 2 ** (len(widths) - 1)
        down: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)]
        for narrow, wide in pairwise(widths):
            down += [_Residual(narrow) for _ in range(blocks)]
            down += [nn.PixelUnshuffle(2), nn.Conv2d(narrow * 4, wide, 1)]
        down += [_Residual(widths[-1]) for _ in range(blocks)]
        down += [_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * latent, 1)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 3, padding=1)]
        for wide, narrow in pairwise(widths[::-1]):
            up += [_Residual(wide) for _ in range(blocks + 1)]
            up += [nn.Conv2d(wide, narrow * 4, 1), nn.PixelShuffle(2)]
        up += [_Residual(widths[0]) for _ in range(blocks + 1)]
        up += [_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels * patch**2, 3, padding=1)]
        self.decoder = nn.Sequential(*up, nn.PixelShuffle(patch))
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
        """Standardised latents (B, latent, h, w) of pictures in [-1, 1]."""
        mean = self.moments(x)[0]
        return (mean - self.latent_mean.view(1, -1, 1, 1)) / self.latent_std.view(1, -1, 1, 1)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures, about [-1, 1], of standardised latents."""
        out: Tensor = self.decoder(z * self.latent_std.view(1, -1, 1, 1) + self.latent_mean.view(1, -1, 1, 1))
        return out
