"""Transformers for sets: points, atoms, tokens in no order.

Nothing depends on the order of the elements, and what a mask leaves out is neither looked at nor changed. With inducing
points, attention goes through a few learned tokens and costs a number of elements times theirs.

References:
    Lee et al., Set Transformer (2019), section 3; Peebles and Xie, Scalable Diffusion Models with Transformers (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.attention import Backend, attend, merge_heads, split_heads
from perrin.nn.transformer import checkpointed, time_features

__all__ = ["PointTransformer"]


class _Block(nn.Module):
    """Attention among elements, to the context, a feed-forward layer; scaled, shifted and gated by the condition."""

    def __init__(self, width: int, heads: int, hidden: int, context: bool, inducing: int) -> None:
        super().__init__()
        self.heads = heads
        self.backend: Backend = "auto"
        self.modulation = nn.Linear(width, 6 * width)
        self.inducing = nn.Parameter(torch.randn(inducing, width) / width**0.5) if inducing else None
        self.gather = nn.Linear(width, 2 * width) if inducing else None
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.cross = nn.ModuleDict(
            {"q": nn.Linear(width, width), "kv": nn.Linear(width, 2 * width), "out": nn.Linear(width, width)}
            if context
            else {}
        )
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        for layer in (self.modulation, *([self.cross["out"]] if context else [])):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, c: Tensor, mask: Tensor | None, context: Tensor | None, context_mask: Tensor | None
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).unsqueeze(1).chunk(6, dim=-1)
        width = x.shape[-1:]
        h = torch.addcmul(shift1, F.layer_norm(x, width), 1 + scale1)
        x = torch.addcmul(x, gate1, self.out(self._look(h, mask)))
        if context is not None and self.cross:
            h = F.layer_norm(x, width)
            x = x + self.cross["out"](self._attend(self.cross["q"](h), self.cross["kv"](context), context_mask))
        h = torch.addcmul(shift2, F.layer_norm(x, width), 1 + scale2)
        value, gate = self.up(h).chunk(2, dim=-1)
        return torch.addcmul(x, gate2, self.down(value * F.silu(gate)))

    def _look(self, h: Tensor, mask: Tensor | None) -> Tensor:
        if self.inducing is None or self.gather is None:
            return self._attend(self.q(h), self.kv(h), mask)
        points = self.inducing.to(h).expand(h.shape[0], -1, -1)
        gathered = points + self._attend(points, self.gather(h), mask)
        return self._attend(self.q(h), self.kv(gathered), None)

    def _attend(self, q: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        k, v = (split_heads(part, self.heads) for part in kv.chunk(2, dim=-1))
        keys = None if mask is None else mask[:, None, None]
        return merge_heads(attend(split_heads(q, self.heads), k, v, keys, backend=self.backend))


class PointTransformer(nn.Module):
    """``network(x, t, mask=..., context=...)`` over sets.

    Args:
        channels: of an element.
        width: of a token.
        depth: blocks.
        heads: attention heads.
        hidden: inner width of the gated feed-forward layer.
        context: channels of a context token; 0: there is none.
        classes: labels that a condition may name; label ``classes`` stands for none.
        inducing: learned tokens that attention goes through; 0: every element looks at every other.
        out_channels: of the result; by default as many as come in.
        bands: sines and cosines of each coordinate at so many octaves join the element; 0: none.
        coordinates: how many of the first channels are coordinates.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].

    Attributes:
        recompute: forget what blocks compute inside, and compute it again for the gradient.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        hidden: int = 256,
        context: int = 0,
        classes: int = 0,
        inducing: int = 0,
        out_channels: int | None = None,
        bands: int = 0,
        coordinates: int = 3,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.bands, self.coordinates, self.time_scale, self.recompute = bands, coordinates, time_scale, False
        self.embed = nn.Linear(channels + 2 * bands * coordinates, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.context = nn.Sequential(nn.LayerNorm(context), nn.Linear(context, width)) if context else None
        self.blocks = nn.ModuleList([_Block(width, heads, hidden, context > 0, inducing) for _ in range(depth)])
        self.last_modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, out_channels or channels)
        for layer in (self.last_modulation, self.out):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """One evaluation.

        Args:
            x: (B, N, channels).
            t: (B,) times.
            mask: (B, N) True where there is an element.
            context: (B, L, context) tokens to attend to.
            context_mask: (B, L) True where a token counts.
            label: (B,) integers, where the network has classes.

        Returns:
            (B, N, out_channels); zeros where there is no element.
        """
        h = self.embed(torch.cat([x, *self._waves(x)], dim=-1))
        c = self.time(time_features(t, 256, self.time_scale).to(x.dtype))
        if self.label is not None and label is not None:
            c = c + self.label(label)
        c = F.silu(c)
        keys = self.context(context) if self.context is not None and context is not None else None
        for block in self.blocks:
            h = checkpointed(self.recompute, block, h, c, mask, keys, context_mask)
        shift, scale = self.last_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        out: Tensor = self.out(F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift)
        return out if mask is None else out.masked_fill(~mask[..., None], 0.0)

    def _waves(self, x: Tensor) -> Sequence[Tensor]:
        if not self.bands:
            return ()
        octaves = torch.pi * 2.0 ** torch.arange(self.bands, device=x.device, dtype=x.dtype)
        angle = (x[..., : self.coordinates, None] * octaves).flatten(-2)
        return (angle.sin(), angle.cos())
