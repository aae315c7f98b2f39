r"""Attention, once: one function over tokens with several kernels, and what makes it cheap on large grids.

.. math:: \operatorname{attend}(q, k, v) = \operatorname{softmax}(q k^\top / \sqrt{d} + m)\, v

`attend` looks at every token. `attend_windows` cuts a grid into windows, shifted by half of one in every other block;
`attend_axis` looks along one axis. Both cost a number of tokens times a side instead of the square of the tokens.

Which kernel ``auto`` takes depends on device, precision and size alone, so that a request gives the same bits on each
day: ``benchmarks/nn/bench_attention.py`` measures what the rule says.

References:
    Vaswani et al., Attention Is All You Need (2017), eq. 1; Dao et al., FlashAttention (2022); Liu et al., Swin
    Transformer (2021), section 3.2; Ho et al., Axial Attention (2019); Su et al., RoFormer (2021).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput, NotInstalled

__all__ = [
    "BACKENDS",
    "Attention",
    "Backend",
    "Pattern",
    "attend",
    "attend_axis",
    "attend_on",
    "attend_windows",
    "merge_heads",
    "rotary",
    "rotate",
    "split_heads",
    "unit",
]

Backend = Literal["auto", "plain", "fused", "xformers"]
"""``plain``: two products and a softmax. ``fused``: torch's scaled_dot_product_attention. ``xformers``: its
memory-efficient kernel, where that package is installed."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)

Pattern = Literal["full", "window", "axial"]
"""What a token of a grid looks at."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Attention of ``q`` (..., N, d) to ``k`` and ``v`` (..., M, d): (..., N, d).

    Args:
        q, k, v: batch and heads in front, alike for all three.
        mask: True where a query may look, broadcast to (..., N, M). A query that may look nowhere gets zeros.
        scale: of the products; by default one over the root of d.
        causal: token n looks at tokens 0 to n; wants N = M.
        backend: the kernel.

    Raises:
        InvalidInput: there is no such backend.
        NotInstalled: xformers is missing.
    """
    chosen = _automatic(q, k) if backend == "auto" else backend
    if causal:
        earlier = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        mask = earlier if mask is None else mask & earlier
    bias = None if mask is None else torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -1e4)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    match chosen:
        case "plain":
            scores = (q if scale == 1.0 else q * scale) @ k.transpose(-1, -2)
            out = (scores if bias is None else scores + bias).softmax(-1) @ v
        case "fused":
            out = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
        case "xformers":
            out = _xformers(q, k, v, bias, scale)
        case _:
            raise InvalidInput("backend", backend, "one of " + ", ".join(BACKENDS))
    return out if mask is None else out * mask.any(-1, keepdim=True)


def _automatic(q: Tensor, k: Tensor) -> Backend:
    """The kernel that was measured to be fastest for such sizes."""
    if q.device.type != "cpu":
        return "fused"
    products = q.shape[-2] * k.shape[-2]
    return "plain" if products <= (64**2 if q.dtype == torch.float32 else 1024**2) else "fused"


def _xformers(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    try:
        ops: Any = importlib.import_module("xformers.ops")
    except ImportError:
        raise NotInstalled("the xformers attention backend", "xformers") from None
    lead = q.shape[:-3]
    q, k, v = (x.flatten(0, -4).transpose(1, 2) if lead else x.transpose(0, 1)[None] for x in (q, k, v))
    if bias is not None:
        bias = bias.expand(*lead, q.shape[2], q.shape[1], k.shape[1]).reshape(q.shape[0], q.shape[2], *bias.shape[-2:])
    out: Tensor = ops.memory_efficient_attention(q, k, v, attn_bias=bias, scale=scale)
    return out.transpose(1, 2).unflatten(0, lead) if lead else out[0].transpose(0, 1)


# --- heads and positions ----------------------------------------------------------------------------------------------


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    return cast(Tensor, x.unflatten(-1, (heads, -1)).transpose(1, 2))


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def unit(x: Tensor) -> Tensor:
    """``x`` with its last axis scaled to length one."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def rotary(grid: Sequence[int], head: int, device: torch.device | str = "cpu") -> Tensor:
    """Angles (tokens, head / 2) for `rotate`: each axis of the grid turns its share of the channel pairs.

    Args:
        grid: sides; tokens are in row-major order.
        head: channels of a head; pairs that do not divide by the number of axes stay as they are.
        device: where to.
    """
    each = head // 2 // len(grid)
    frequencies = math.pi / 2 * torch.pow(100.0, -torch.arange(each, device=device) / each)
    parts = []
    for axis, side in enumerate(grid):
        angle = torch.arange(side, device=device)[:, None] * frequencies
        shape = [1] * len(grid)
        shape[axis] = side
        parts.append(angle.view(*shape, each).expand(*grid, each))
    rest = head // 2 - each * len(grid)
    if rest:
        parts.append(torch.zeros(*grid, rest, device=device))
    return torch.cat(parts, dim=-1).flatten(0, -2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs of ``x`` (B, heads, N, d) by angles whose cosine and sine are (N, d / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# --- on grids ---------------------------------------------------------------------------------------------------------


def attend_axis(q: Tensor, k: Tensor, v: Tensor, grid: Sequence[int], axis: int, **options: Any) -> Tensor:
    """`attend` along one axis of a grid whose tokens (B, heads, N, d) are in row-major order."""

    def lines(x: Tensor) -> Tensor:
        return cast(Tensor, x.unflatten(2, tuple(grid)).movedim(2 + axis, -2))

    out = attend(lines(q), lines(k), lines(v), **options)
    return out.movedim(-2, 2 + axis).flatten(2, -2)


def attend_windows(
    q: Tensor, k: Tensor, v: Tensor, grid: Sequence[int], side: int, shifted: bool = False, **options: Any
) -> Tensor:
    """`attend` within windows of ``side`` tokens an axis; a grid that does not divide is padded with masked tokens.

    Args:
        q, k, v: (B, heads, N, d), tokens in row-major order.
        grid: sides of the grid.
        side: of a window.
        shifted: windows begin half a side earlier.
        options: of `attend`.
    """
    before = [side // 2 if shifted and n > side else 0 for n in grid]
    after = [-(n + b) % side for n, b in zip(grid, before, strict=True)]
    counts = [(n + b + a) // side for n, b, a in zip(grid, before, after, strict=True)]
    pad = [p for b, a in zip(reversed(before), reversed(after), strict=True) for p in (b, a)]

    def cut(x: Tensor) -> Tensor:
        """(B, heads, N, d) to (B, heads, windows, side^dims, d)."""
        x = F.pad(x.unflatten(2, tuple(grid)), [0, 0, *pad])
        for axis, count in enumerate(counts):
            x = x.unflatten(2 + 2 * axis, (count, side))
        dims = len(grid)
        order = [0, 1, *(2 + 2 * i for i in range(dims)), *(3 + 2 * i for i in range(dims)), x.ndim - 1]
        return x.permute(order).flatten(2 + dims, 1 + 2 * dims).flatten(2, 1 + dims)

    there = cut(torch.ones(1, 1, math.prod(grid), 1, device=q.device, dtype=torch.bool)) if any(pad) else None
    out = attend(cut(q), cut(k), cut(v), None if there is None else there.transpose(-1, -2), **options)
    dims = len(grid)
    out = out.unflatten(2, tuple(counts)).unflatten(2 + dims, (side,) * dims)
    order = [0, 1, *(axis for i in range(dims) for axis in (2 + i, 2 + dims + i)), out.ndim - 1]
    out = out.permute(order)
    for axis in range(dims):
        out = out.flatten(2 + axis, 3 + axis)
        out = out.narrow(2 + axis, before[axis], grid[axis])
    return cast(Tensor, out.flatten(2, 1 + dims))


def attend_on(
    q: Tensor, k: Tensor, v: Tensor, grid: Sequence[int], pattern: Pattern, turn: int, side: int, backend: Backend
) -> Tensor:
    """`attend` on a grid by a pattern; ``turn``, the number of the block, alternates shifts and axes."""
    match pattern:
        case "full":
            return attend(q, k, v, scale=1.0, backend=backend)
        case "window":
            return attend_windows(q, k, v, grid, side, turn % 2 == 1, scale=1.0, backend=backend)
        case "axial":
            return attend_axis(q, k, v, grid, turn % len(grid), scale=1.0, backend=backend)
    raise InvalidInput("pattern", pattern, "full, window or axial")


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves, or to a context, added to what came in; begins as the identity.

    Args:
        width: channels of a token.
        heads: attention heads.
        context: channels of a context token; 0 is self-attention.
        causal: a token looks at itself and earlier ones.
        rotates: positions are rotary along the tokens' one axis.
    """

    def __init__(self, width: int, heads: int, context: int = 0, causal: bool = False, rotates: bool = False) -> None:
        super().__init__()
        self.heads, self.causal, self.rotates = heads, causal, rotates
        self.backend: Backend = "auto"
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context or width, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            x: (B, N, width).
            context: (B, M, context) to look at; by default x.
            mask: (B, M) True where a token counts.
        """
        h = self.norm(x)
        q = split_heads(self.q(h), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.kv(h if context is None else context).chunk(2, dim=-1))
        if self.rotates:
            angle = rotary((x.shape[1],), q.shape[-1], x.device)
            cos, sin = angle.cos().to(q), angle.sin().to(q)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        keys = None if mask is None else mask[:, None, None]
        out: Tensor = self.out(merge_heads(attend(q, k, v, keys, causal=self.causal, backend=self.backend)))
        return x + out
