"""Layers along time, beside the spatial ones: an image model becomes a video model without forgetting.

Every layer here adds something to its input that is zero at first. So a network with them gives, frame by frame, what
the same network gave without them, until training says otherwise.

References:
    Ho et al., Video Diffusion Models (2022), section 3; Blattmann et al., Align your Latents (2023), section 3.1.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.attention import Attention

__all__ = ["TemporalAttention", "TemporalConv", "fold_frames", "unfold_frames"]


def fold_frames(x: Tensor) -> Tensor:
    """(B, C, F, *grid) to (B * F, C, *grid): frames become samples."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_frames(x: Tensor, frames: int) -> Tensor:
    """(B * F, C, *grid) to (B, C, F, *grid)."""
    return cast(Tensor, x.unflatten(0, (-1, frames)).transpose(1, 2))


class TemporalAttention(nn.Module):
    """Attention of each place to itself at other times, with rotary positions, so that any number of frames will do.

    Args:
        width: channels.
        heads: attention heads.
        causal: a frame sees itself and earlier ones.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.attention = Attention(width, heads, causal=causal, rotates=True)

    def forward(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            x: (B * frames, N, width).
            frames: how many.
            mask: (B, frames) True where a frame is there.

        Returns:
            (B * frames, N, width).
        """
        places = x.shape[1]
        lines = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
        there = None if mask is None else mask.repeat_interleave(places, dim=0)
        out = self.attention(lines, mask=there)
        return cast(Tensor, out.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1))


class TemporalConv(nn.Module):
    """A convolution along time, over three frames; a causal one sees the present and two before.

    Args:
        channels: in and out.
        causal: see above.
    """

    def __init__(self, channels: int, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.norm = nn.GroupNorm(max(1, channels // 16), channels)
        self.conv = nn.Conv1d(channels, channels, 3)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B * frames, C, *grid) to the same shape."""
        grid = x.shape[2:]
        lines = F.silu(self.norm(x)).flatten(2).unflatten(0, (-1, frames)).permute(0, 3, 2, 1)
        lines = F.pad(lines.flatten(0, 1), (2, 0) if self.causal else (1, 1))
        out = self.conv(lines).unflatten(0, (-1, grid.numel())).permute(0, 3, 2, 1).flatten(0, 1)
        return cast(Tensor, x + out.unflatten(2, grid))
