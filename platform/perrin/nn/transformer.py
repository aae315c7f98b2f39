"""Diffusion transformer: self-attention over patches, cross-attention to a context, adaLN-zero from the time.

Positions are rotary along every axis of the grid, so that one set of weights serves any grid size. The modulation of
all blocks comes from one shared layer plus a learned table per block.

References:
    Peebles and Xie, Scalable Diffusion Models with Transformers (2023); Chen et al., PixArt-alpha (2023), section 2.3;
    Su et al., RoFormer (2021); Shazeer, GLU Variants Improve Transformer (2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DiffusionTransformer", "time_features"]


def time_features(t: Tensor, width: int, scale: float = 1000.0) -> Tensor:
    """Sines and cosines of ``t`` (B,) at geometric frequencies: (B, width)."""
    frequencies = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10_000) / (width // 2)))
    angle = scale * t.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _rotation(height: int, width: int, head: int, device: torch.device) -> Tensor:
    """(height * width, head / 2) complex rotations; half of the channel pairs turn with each axis."""
    quarter = head // 4
    frequencies = math.pi / 2 * torch.pow(100.0, -torch.arange(quarter, device=device) / quarter)
    rows = torch.arange(height, device=device)[:, None] * frequencies
    columns = torch.arange(width, device=device)[:, None] * frequencies
    angle = torch.cat(
        [
            rows[:, None].expand(height, width, quarter),
            columns[None].expand(height, width, quarter),
        ],
        dim=-1,
    )
    return angle.reshape(height * width, 2 * quarter)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs of ``x`` (B, heads, N, head) by their angles (N, head / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def _unit(x: Tensor) -> Tensor:
    """``x`` with its last axis scaled to length one."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of scaled queries (B, heads, N, head); two plain products beat the fused kernel at these sizes."""
    scores = q @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1) @ v


def _heads(x: Tensor, heads: int) -> Tensor:
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    batch, heads, tokens, head = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * head)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.cross_q = nn.Linear(width, width)
        self.cross_kv = nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.q_gain = nn.Parameter(torch.full((heads, 1, width // heads), float(width // heads) ** 0.5))
        self.table = nn.Parameter(torch.zeros(6, width))
        nn.init.zeros_(self.cross_out.weight)
        nn.init.zeros_(self.cross_out.bias)

    def forward(
        self, x: Tensor, modulation: Tensor, context: Tensor, mask: Tensor | None, cos: Tensor, sin: Tensor
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).to(x).unsqueeze(2).unbind(1)
        width = x.shape[-1:]
        h = torch.addcmul(shift1, F.layer_norm(x, width), 1 + scale1)
        q, k, v = (_heads(part, self.heads) for part in self.qkv(h).chunk(3, dim=-1))
        q, k = _rotate(_unit(q) * self.q_gain.to(q), cos, sin), _rotate(_unit(k), cos, sin)
        x = torch.addcmul(x, gate1, self.self_out(_merge(_attend(q, k, v, None))))
        k, v = (_heads(part, self.heads) for part in self.cross_kv(context).chunk(2, dim=-1))
        q = _heads(self.cross_q(F.layer_norm(x, width)), self.heads)
        x = x + self.cross_out(_merge(_attend(q * (q.shape[-1] ** -0.5), k, v, mask)))
        h = torch.addcmul(shift2, F.layer_norm(x, width), 1 + scale2)
        value, gate = self.up(h).chunk(2, dim=-1)
        return torch.addcmul(x, gate2, self.down(value * F.silu(gate)))


class DiffusionTransformer(nn.Module):
    """``network(x, t, context=..., context_mask=...)`` over a grid.

    Args:
        channels: of the grid.
        width: of a token; a multiple of 4 * heads.
        depth: blocks.
        heads: attention heads.
        hidden: inner width of the gated feed-forward layer.
        patch: side of a patch.
        context: channels of a context token.
        classes: labels that a condition may name; label ``classes`` stands for none.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].
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
    ) -> None:
        super().__init__()
        self.channels, self.width, self.heads, self.patch, self.time_scale = channels, width, heads, patch, time_scale
        self.embed = nn.Linear(channels * patch**2, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.context = nn.Sequential(nn.LayerNorm(context), nn.Linear(context, width))
        self.pooled = nn.Linear(context, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList([_Block(width, heads, hidden) for _ in range(depth)])
        self.last_modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels * patch**2)
        for layer in (self.modulation, self.last_modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        context_mask: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        Args:
            x: (B, channels, H, W), sides divisible by the patch.
            t: (B,) times.
            context: (B, L, context) tokens to attend to.
            context_mask: (B, L) True where a token counts.
            label: (B,) integers, where the network has classes.

        Returns:
            (B, channels, H, W).
        """
        batch, _, height, width = x.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        tokens = (
            x.view(batch, self.channels, rows, p, columns, p)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(batch, rows * columns, -1)
        )
        mask = None if context_mask is None else torch.where(context_mask, 0.0, -1e4)[:, None, None].to(x.dtype)
        weight = torch.ones_like(context[..., :1]) if context_mask is None else context_mask[..., None].to(context)
        pooled = (context * weight).sum(1) / weight.sum(1).clamp(min=1)
        c = self.time(time_features(t, 256, self.time_scale).to(x)) + self.pooled(pooled)
        if self.label is not None and label is not None:
            c = c + self.label(label)
        c = F.silu(c)
        modulation = self.modulation(c).view(batch, 6, self.width)
        angle = _rotation(rows, columns, self.width // self.heads, x.device)
        h, keys = self.embed(tokens), self.context(context)
        cos, sin = angle.cos().to(h.dtype), angle.sin().to(h.dtype)
        mask = None if mask is None else mask.to(h.dtype)
        for block in self.blocks:
            h = block(h, modulation, keys, mask, cos, sin)
        shift, scale = self.last_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        out: Tensor = self.out(F.layer_norm(h, (self.width,)) * (1 + scale) + shift)
        return out.view(batch, rows, columns, self.channels, p, p).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
