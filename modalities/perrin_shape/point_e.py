"""Point-E's and Shap-E's networks: transformers whose tokens are points, or vectors of a latent, beside one for the
time and some for what is told.

Names of layers are those of the published weights, which so load as they are. A point is three coordinates and three
colours; of the twelve numbers that come out, six are the noise and six its variance. A latent of Shap-E has a thousand
vectors, whose places are told apart by vectors of their own.

References:
    Nichol, Jun, Dhariwal, Mishkin and Chen, Point-E: A system for generating 3D point clouds from complex prompts
    (2022), section 4 and appendix A; Jun and Nichol, Shap-E (2023), section 4.3.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PROCESSES", "PointE"]

PROCESSES: dict[str, dict[str, Any]] = {
    "base": {"kind": "cosine", "steps": 1024},
    "upsample": {"kind": "linear", "beta_min": 1e-4 * 1000 / 1024, "beta_max": 0.02 * 1000 / 1024, "steps": 1024},
}
"""The forward processes of the two stages."""

HEAD = 64
"""Width of a head, in all published sizes."""


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.c_qkv, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_qkv(x).unflatten(-1, (self.heads, 3 * HEAD)).transpose(1, 2).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.c_proj(mixed.transpose(1, 2).flatten(2)))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.c_proj(F.gelu(self.c_fc(x))))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(width), _Mlp(width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return cast(Tensor, x + self.mlp(self.ln_2(x)))


class PointE(nn.Module):
    """Noisy tokens (B, channels, n) at times (B,) of 0 to 1023 to what is predicted and variance (B, 2 channels, n).

    Args:
        width, layers: of the transformer.
        told: none, vector (B, size) of CLIP's, or grid (B, m, size) of its picture's patches.
        size: of what is told.
        upsamples: it is told points (B, 6, k) of a coarser cloud.
        channels: of a token.
        positions: tokens that are told apart; 0: they are points, whose order says nothing.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        told: str = "none",
        size: int = 0,
        upsamples: bool = False,
        channels: int = 6,
        positions: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.told, self.size, self.upsamples = width, told, size, upsamples
        self.channels, self.positions = channels, positions
        self.time_embed = _Mlp(width)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.backbone = nn.Module()
        self.backbone.resblocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.input_proj, self.output_proj = nn.Linear(channels, width), nn.Linear(width, 2 * channels)
        self.pos_emb = nn.Parameter(torch.zeros(positions, width)) if positions else None
        if told == "vector":
            self.clip_embed: nn.Module = nn.Linear(size, width)
        if told == "grid":
            self.clip_embed = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width))
        if upsamples:
            self.cond_point_proj = nn.Linear(6, width)

    def forward(self, x: Tensor, t: Tensor, clip: Tensor | None = None, coarse: Tensor | None = None) -> Tensor:
        """Noise and variance.

        Args:
            x: (B, channels, n).
            t: (B,).
            clip: (B, size) of length one, or (B, m, size); zeros tell nothing.
            coarse: (B, 6, k), scaled as ``x`` is.
        """
        points = self.input_proj(x.transpose(1, 2))
        if self.pos_emb is not None:
            points = points + self.pos_emb
        time = self.time_embed(_waves(t, self.width).to(x.dtype))[:, None]
        extra: list[Tensor] = []
        if self.told == "vector" and clip is not None:
            extra.append(self.clip_embed(math.sqrt(self.size) * clip)[:, None])
        extra.append(time)
        if self.told == "grid" and clip is not None:
            extra.append(self.clip_embed(clip))
        if self.upsamples and coarse is not None:
            extra.append(self.cond_point_proj(coarse.transpose(1, 2)))
        h = self.ln_pre(torch.cat([*(part.expand(len(x), -1, -1) for part in extra), points], 1))
        for block in cast(nn.ModuleList, self.backbone.resblocks):
            h = block(h)
        return cast(Tensor, self.output_proj(self.ln_post(h[:, -points.shape[1] :])).transpose(1, 2))


def _waves(t: Tensor, width: int) -> Tensor:
    """(B, width): cosines, then sines, of falling frequency."""
    half = width // 2
    rate = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], -1)
