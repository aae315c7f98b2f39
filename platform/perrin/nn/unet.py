"""U-Net: residual blocks told the time, attention at chosen levels, resampling that does not alias.

One text for one, two and three axes, and for frames: with ``temporal``, every block is followed by layers along time
that are zero at first.

References:
    Ho et al., Denoising Diffusion Probabilistic Models (2020); Dhariwal and Nichol, Diffusion Models Beat GANs (2021),
    section 3 (adaptive group norm, resampling inside residual blocks); Zhang, Making Convolutional Networks
    Shift-Invariant Again (2019); Sandler et al., MobileNetV2 (2018) for depthwise blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.attention import Attention
from perrin.nn.temporal import TemporalAttention, TemporalConv, fold_frames, unfold_frames
from perrin.nn.transformer import checkpointed, mean_token, time_features

__all__ = ["ResidualBlock", "UNet", "resample"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_KERNEL = (1.0, 3.0, 3.0, 1.0)


def resample(x: Tensor, factor: int, circular: bool = False) -> Tensor:
    """``x`` (B, C, *grid) at twice (``factor`` 1) or half (-1) the sides, low-passed by (1, 3, 3, 1) on each axis.

    Beyond the grid are zeros; or, ``circular``, the places of its other side.
    """
    if factor == 0:
        return x
    dims, channels = x.ndim - 2, x.shape[1]
    for axis in range(dims):
        kernel = torch.tensor(_KERNEL, dtype=x.dtype, device=x.device) / sum(_KERNEL) * (2.0 if factor > 0 else 1.0)
        shape, stride, padding = [1] * dims, [1] * dims, [0] * dims
        shape[axis], stride[axis], padding[axis] = 4, 2, 1
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        name = f"conv{'_transpose' if factor > 0 else ''}{dims}d"
        if circular:
            x = torch.cat([x.narrow(2 + axis, x.shape[2 + axis] - 1, 1), x, x.narrow(2 + axis, 0, 1)], 2 + axis)
            padding[axis] = 3 if factor > 0 else 0
        x = getattr(F, name)(x, weight, stride=stride, padding=padding, groups=channels)
    return x


def _norm(channels: int, width: int = 16) -> nn.GroupNorm:
    groups = max(1, channels // width)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-5)


def _conv(dims: int, narrow: int, wide: int, depthwise: bool) -> nn.Module:
    conv = _CONVS[dims - 1]
    if not depthwise:
        return conv(narrow, wide, 3, padding=1)
    return nn.Sequential(conv(narrow, narrow, 5, padding=2, groups=narrow), conv(narrow, wide, 1))


class ResidualBlock(nn.Module):
    """Two convolutions; the second norm is scaled and shifted by the condition.

    Args:
        narrow, wide: channels in and out.
        condition: width of the condition; 0: there is none.
        dims: axes of the grid.
        resamples: 1 doubles the sides, -1 halves them, 0 keeps them.
        depthwise: convolve channel by channel, then mix; half the work or less.
        dropout: probability.

    Attributes:
        circular: resample as if the grid were a ring, see `perrin.nn.circular`.
    """

    def __init__(
        self,
        narrow: int,
        wide: int,
        condition: int = 0,
        dims: int = 2,
        resamples: int = 0,
        depthwise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.resamples, self.circular = resamples, False
        self.norm1, self.conv1 = _norm(narrow), _conv(dims, narrow, wide, depthwise)
        self.condition = nn.Linear(condition, 2 * wide) if condition else None
        self.norm2, self.conv2 = _norm(wide), _conv(dims, wide, wide, depthwise)
        self.dropout = nn.Dropout(dropout)
        self.skip = _CONVS[dims - 1](narrow, wide, 1) if narrow != wide else nn.Identity()
        last = self.conv2[-1] if isinstance(self.conv2, nn.Sequential) else self.conv2
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, narrow, *grid) and (B, condition) to (B, wide, *grid)."""
        h = self.conv1(resample(F.silu(self.norm1(x)), self.resamples, self.circular))
        h = self.norm2(h)
        if self.condition is not None and condition is not None:
            told = self.condition(condition).view(h.shape[0], -1, *[1] * (h.ndim - 2))
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        h = self.conv2(self.dropout(F.silu(h)))
        return cast(Tensor, self.skip(resample(x, self.resamples, self.circular)) + h)


class _Place(nn.Module):
    """What happens at one place of the U: a residual block, then attention and layers along time where wanted."""

    def __init__(self, block: ResidualBlock, width: int, heads: int, context: int, attends: bool, time: str) -> None:
        super().__init__()
        self.block = block
        self.attention = Attention(width, heads) if attends else None
        self.cross = Attention(width, heads, context) if attends and context else None
        self.time_conv = TemporalConv(width, time == "causal") if time else None
        self.time_attention = TemporalAttention(width, heads, time == "causal") if time and attends else None

    def forward(self, x: Tensor, condition: Tensor, context: Tensor | None, mask: Tensor | None, frames: int) -> Tensor:
        x = self.block(x, condition)
        if self.time_conv is not None:
            x = self.time_conv(x, frames)
        if self.attention is None:
            return x
        tokens = self.attention(x.flatten(2).transpose(1, 2))
        if self.cross is not None:
            tokens = self.cross(tokens, context, mask)
        if self.time_attention is not None:
            tokens = self.time_attention(tokens, frames)
        return cast(Tensor, tokens.transpose(1, 2).reshape(x.shape))


class UNet(nn.Module):
    """``network(x, t, context=..., context_mask=..., label=...)`` over a grid of one, two or three axes.

    Args:
        channels: of the grid.
        widths: channels at each level, finest first; every level halves the sides.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: levels that attend, 0 is the finest.
        head: channels of an attention head.
        context: channels of a context token; 0: there is none.
        classes: labels that a condition may name; label ``classes`` stands for none.
        dims: axes of the grid.
        out_channels: of the result; by default as many as come in.
        depthwise: see `ResidualBlock`.
        dropout: probability inside residual blocks.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].
        temporal: layers along frames.
        causal: a frame sees itself and earlier ones.

    Attributes:
        kept: channels of what the way down keeps for the way up.
        recompute: forget what blocks compute inside, and compute it again for the gradient.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256),
        blocks: int = 2,
        attention: Sequence[int] = (1, 2),
        head: int = 32,
        context: int = 0,
        classes: int = 0,
        dims: int = 2,
        out_channels: int | None = None,
        depthwise: bool = False,
        dropout: float = 0.0,
        time_scale: float = 1000.0,
        temporal: bool = False,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.dims, self.time_scale, self.recompute = channels, dims, time_scale, False
        self.out_channels = out_channels or channels
        width = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.pooled = nn.Linear(context, width) if context else None
        self.embed = _CONVS[dims - 1](channels, widths[0], 3, padding=1)
        time = ("causal" if causal else "both") if temporal else ""

        def place(narrow: int, wide: int, level: int, resamples: int = 0) -> _Place:
            block = ResidualBlock(narrow, wide, width, dims, resamples, depthwise, dropout)
            attends = level in attention and not resamples
            return _Place(block, wide, max(1, wide // head), context, attends, time)

        self.frequencies = widths[0]
        kept = [widths[0]]
        down: list[_Place] = []
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                down.append(place(kept[-1], wide, level))
                kept.append(wide)
            if level < len(widths) - 1:
                down.append(place(wide, wide, level, -1))
                kept.append(wide)
        self.kept = tuple(kept)
        self.down = nn.ModuleList(down)
        deepest = len(widths) - 1
        self.middle = nn.ModuleList([place(widths[-1], widths[-1], deepest), place(widths[-1], widths[-1], -1)])
        up: list[_Place] = []
        now = widths[-1]
        for level, wide in reversed(tuple(enumerate(widths))):
            for _ in range(blocks + 1):
                up.append(place(now + kept.pop(), wide, level))
                now = wide
            if level:
                up.append(place(now, now, level, 1))
        self.up = nn.ModuleList(up)
        self.joins = tuple(not layer.block.resamples for layer in up)
        self.norm = _norm(widths[0])
        self.out = _CONVS[dims - 1](widths[0], self.out_channels, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        label: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
    ) -> Tensor:
        """One evaluation.

        Args:
            x: (B, channels, *grid), sides divisible by 2^(levels - 1); or (B, channels, frames, *grid).
            t: (B,) times.
            context: (B, L, context) tokens to attend to.
            context_mask: (B, L) True where a token counts.
            label: (B,) integers, where the network has classes.
            residuals: added to what is kept on the way down, first to last, see `perrin.nn.control`.

        Returns:
            (B, out_channels, *grid), with frames as in x.
        """
        frames = x.shape[2] if x.ndim == self.dims + 3 else 0
        h = fold_frames(x) if frames else x
        c = self.condition(t, context, context_mask, label, h.dtype)
        if frames:
            c = c.repeat_interleave(frames, 0)
            context = None if context is None else context.repeat_interleave(frames, 0)
            context_mask = None if context_mask is None else context_mask.repeat_interleave(frames, 0)
        rest = (c, context, context_mask, frames or 1)
        h, kept = self.contract(h, rest)
        kept = [one + two for one, two in zip(kept, residuals, strict=True)] if residuals else kept
        for layer in self.middle:
            h = checkpointed(self.recompute, layer, h, *rest)
        for layer, joins in zip(self.up, self.joins, strict=True):
            if joins:
                h = torch.cat([h, kept.pop()], dim=1)
            h = checkpointed(self.recompute, layer, h, *rest)
        out: Tensor = self.out(F.silu(self.norm(h)))
        return unfold_frames(out, frames) if frames else out

    def contract(
        self, x: Tensor, rest: tuple[Tensor, Tensor | None, Tensor | None, int]
    ) -> tuple[Tensor, list[Tensor]]:
        """The way down: what is at its end, and what is kept for the way up."""
        h = self.embed(x)
        kept = [h]
        for layer in self.down:
            h = checkpointed(self.recompute, layer, h, *rest)
            kept.append(h)
        return h, kept

    def condition(
        self, t: Tensor, context: Tensor | None, context_mask: Tensor | None, label: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """What every block is told (B, width)."""
        c: Tensor = self.time(time_features(t, self.frequencies, self.time_scale).to(dtype))
        if self.pooled is not None and context is not None:
            c = c + self.pooled(mean_token(context, context_mask))
        if self.label is not None and label is not None:
            c = c + self.label(label)
        return F.silu(c)
