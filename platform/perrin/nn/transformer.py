"""Diffusion transformer: self-attention over patches, cross-attention to a context, adaLN-zero from the time.

Positions are rotary along every axis of the grid, so that one set of weights serves any grid size. The modulation of
all blocks comes from one shared layer plus a learned table per block; or, where that says too little, each has its own.

References:
    Peebles and Xie, Scalable Diffusion Models with Transformers (2023); Chen et al., PixArt-alpha (2023), section 2.3;
    Su et al., RoFormer (2021); Shazeer, GLU Variants Improve Transformer (2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from perrin.nn.attention import (
    Backend,
    Pattern,
    attend,
    attend_on,
    merge_heads,
    rotary,
    rotate,
    split_heads,
    unit,
)
from perrin.nn.temporal import TemporalAttention, fold_frames, unfold_frames

__all__ = ["DiffusionTransformer", "checkpointed", "mean_token", "patches", "time_features", "unpatches"]


def time_features(t: Tensor, width: int, scale: float = 1000.0) -> Tensor:
    """Sines and cosines of ``t`` (B,) at geometric frequencies: (B, width)."""
    frequencies = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10_000) / (width // 2)))
    angle = scale * t.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def mean_token(context: Tensor, mask: Tensor | None) -> Tensor:
    """The mean (B, width) of the tokens (B, L, width) that count, by a mask (B, L)."""
    weight = torch.ones_like(context[..., :1]) if mask is None else mask[..., None].to(context)
    return (context * weight).sum(1) / weight.sum(1).clamp(min=1)


def checkpointed(on: bool, layer: nn.Module, *inputs: Any) -> Any:
    """``layer(*inputs)``; if ``on``, what it computed inside is forgotten and computed again for the gradient."""
    if on and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


class _Block(nn.Module):
    """Attention on the grid, along time, to the context; then a gated feed-forward layer."""

    def __init__(
        self, width: int, heads: int, hidden: int, context: bool, temporal: bool, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.pattern: Pattern = "full"
        self.backend: Backend = "auto"
        self.turn, self.side = 0, 8
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        if context:
            self.cross_q = nn.Linear(width, width)
            self.cross_kv = nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)
            nn.init.zeros_(self.cross_out.weight)
            nn.init.zeros_(self.cross_out.bias)
        self.temporal = TemporalAttention(width, heads, causal) if temporal else None
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.q_gain = nn.Parameter(torch.full((heads, 1, width // heads), float(width // heads) ** 0.5))
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        angles: tuple[Tensor, Tensor],
        shape: tuple[int, tuple[int, ...]],
    ) -> Tensor:
        """(B * frames, N, width) to the same; ``shape`` is (frames, grid)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).to(x).unsqueeze(2).unbind(1)
        width, (frames, grid) = x.shape[-1:], shape
        h = torch.addcmul(shift1, F.layer_norm(x, width), 1 + scale1)
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(h).chunk(3, dim=-1))
        q, k = rotate(unit(q) * self.q_gain.to(q), *angles), rotate(unit(k), *angles)
        seen = attend_on(q, k, v, grid, self.pattern, self.turn, self.side, self.backend)
        x = torch.addcmul(x, gate1, self._some(self.self_out(merge_heads(seen))))
        if self.temporal is not None:
            x = self.temporal(x, frames)
        if context is not None:
            k, v = (split_heads(part, self.heads) for part in self.cross_kv(context).chunk(2, dim=-1))
            q = split_heads(self.cross_q(F.layer_norm(x, width)), self.heads)
            x = x + self._some(self.cross_out(merge_heads(attend(q, k, v, mask, backend=self.backend))))
        h = torch.addcmul(shift2, F.layer_norm(x, width), 1 + scale2)
        value, gate = self.up(h).chunk(2, dim=-1)
        return torch.addcmul(x, gate2, self._some(self.down(value * F.silu(gate))))

    def _some(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class DiffusionTransformer(nn.Module):
    """``network(x, t, context=..., context_mask=...)`` over a grid of any number of axes.

    With ``temporal``, x may have an axis of frames before the grid's; the layers along it are zero at first.

    Args:
        channels: of the grid.
        width: of a token; a multiple of 4 * heads.
        depth: blocks.
        heads: attention heads.
        hidden: inner width of the gated feed-forward layer.
        patch: side of a patch.
        context: channels of a context token; 0: there is no context.
        classes: labels that a condition may name; label ``classes`` stands for none. A condition may name several.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].
        dims: axes of the grid.
        out_channels: of the result; by default as many as come in.
        pattern: what a token looks at: ``full``, ``window`` (shifted in every other block) or ``axial`` (by turns).
        window: side of a window, in tokens.
        temporal: attention along frames in every block.
        causal: a frame sees itself and earlier ones.
        dropout: probability, of what each part of a block adds.
        own_modulation: every block is told the condition by a layer of its own.
        skip: the input is added to the result, each number times what the last block says of its token. What is nearly
            clean then passes, where a patch has more numbers than a token can carry.

    Attributes:
        recompute: forget what blocks compute inside, and compute it again for the gradient.
    """

    def __init__(
        self,
        channels: int = 16,
        width: int = 192,
        depth: int = 10,
        heads: int = 6,
        hidden: int = 512,
        patch: int = 1,
        context: int = 384,
        classes: int = 0,
        time_scale: float = 1000.0,
        dims: int = 2,
        out_channels: int | None = None,
        pattern: Pattern = "full",
        window: int = 8,
        temporal: bool = False,
        causal: bool = False,
        dropout: float = 0.0,
        own_modulation: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if skip and out_channels not in (None, channels):
            raise ValueError(f"skip: wanted as many channels out as in, {channels}, got {out_channels}")
        self.channels, self.width, self.heads, self.patch, self.time_scale = channels, width, heads, patch, time_scale
        self.dims, self.out_channels, self.recompute = dims, out_channels or channels, False
        self.embed = nn.Linear(channels * patch**dims, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        if context:
            self.context = nn.Sequential(nn.LayerNorm(context), nn.Linear(context, width))
            self.pooled = nn.Linear(context, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.modulation = nn.Linear(width, (depth if own_modulation else 1) * 6 * width)
        made = [_Block(width, heads, hidden, context > 0, temporal, causal, dropout) for _ in range(depth)]
        for turn, block in enumerate(made):
            block.turn, block.pattern, block.side = turn, pattern, window
        self.blocks = nn.ModuleList(made)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, self.out_channels * patch**dims)
        self.skip = nn.Linear(width, self.out_channels * patch**dims) if skip else None
        for layer in (self.modulation, self.last_modulation, self.out, *([self.skip] if self.skip else [])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

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
            x: (B, channels, *grid), sides divisible by the patch; or (B, channels, frames, *grid).
            t: (B,) times.
            context: (B, L, context) tokens to attend to.
            context_mask: (B, L) True where a token counts.
            label: (B,) integers, where the network has classes; or (B, K), of which the embeddings add up.
            residuals: added to what the first blocks give, see `perrin.nn.control`.

        Returns:
            (B, out_channels, *grid), with frames as in x.
        """
        frames = x.shape[2] if x.ndim == self.dims + 3 else 0
        h = fold_frames(x) if frames else x
        grid = tuple(side // self.patch for side in h.shape[2:])
        given = patches(h, self.patch)
        h = self.embed(given)
        c, keys, mask = self.condition(t, context, context_mask, label, h.dtype)
        modulations = self.modulations(c)
        last = self.last_modulation(c).unsqueeze(1)
        if frames:
            modulations = [part.repeat_interleave(frames, 0) for part in modulations]
            last = last.repeat_interleave(frames, 0)
            keys, mask = (None if part is None else part.repeat_interleave(frames, 0) for part in (keys, mask))
        angle = rotary(grid, self.width // self.heads, x.device)
        angles = (angle.cos().to(h.dtype), angle.sin().to(h.dtype))
        for number, block in enumerate(self.blocks):
            h = checkpointed(self.recompute, block, h, modulations[number], keys, mask, angles, (frames or 1, grid))
            if number < len(residuals):
                h = h + residuals[number]
        shift, scale = last.chunk(2, dim=-1)
        h = F.layer_norm(h, (self.width,)) * (1 + scale) + shift
        out = self.out(h) if self.skip is None else torch.addcmul(self.out(h), self.skip(h), given)
        out = unpatches(out, grid, self.patch)
        return unfold_frames(out, frames) if frames else out

    def condition(
        self, t: Tensor, context: Tensor | None, context_mask: Tensor | None, label: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What every block is told: a vector (B, width), and the tokens (B, L, width) to look at with their mask."""
        c = self.time(time_features(t, 256, self.time_scale).to(dtype))
        keys = mask = None
        if context is not None:
            c = c + self.pooled(mean_token(context, context_mask))
            keys = self.context(context)
            mask = None if context_mask is None else context_mask[:, None, None]
        if self.label is not None and label is not None:
            told = self.label(label)
            c = c + (told.sum(1) if label.ndim > 1 else told)
        return F.silu(c), keys, mask

    def modulations(self, c: Tensor) -> list[Tensor]:
        """For every block, how the condition (B, width) shifts, scales and gates it: (B, 6, width)."""
        told = self.modulation(c).unflatten(1, (-1, 6, self.width)).unbind(1)
        return list(told) * (len(self.blocks) // len(told))


def patches(x: Tensor, side: int) -> Tensor:
    """(B, C, *grid) to tokens (B, N, C * side^dims), row by row."""
    dims = x.ndim - 2
    for axis in range(dims):
        x = x.unflatten(2 + 2 * axis, (-1, side))
    order = [0, *(2 + 2 * i for i in range(dims)), 1, *(3 + 2 * i for i in range(dims))]
    return x.permute(order).flatten(1 + dims).flatten(1, dims)


def unpatches(tokens: Tensor, grid: Sequence[int], side: int) -> Tensor:
    """The other way; ``grid`` counts patches."""
    dims = len(grid)
    x = tokens.unflatten(1, tuple(grid)).unflatten(-1, (-1, *[side] * dims))
    x = x.permute(0, 1 + dims, *(axis for i in range(dims) for axis in (1 + i, 2 + dims + i)))
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return cast(Tensor, x)
