r"""E(3)-equivariant network over points with features, and pairs with features, under masks.

Every point carries a few vectors of its own, X_i^k, which begin as mixtures of what comes in. Distances and inner
products alone enter the messages, and vectors move along differences of vectors; so turning, mirroring or moving what
comes in does the same to what comes out.

.. math::
    m_{ij} = \phi_e(h_i, h_j, e_{ij}, |X_i - X_j|, X_i \cdot X_j), \quad
    e_{ij} \leftarrow e_{ij} + \phi_p(m_{ij} + m_{ji}), \\
    h_i \leftarrow h_i + \phi_h\Big(h_i, \sum_j \mathrm{softmax}_j(a(m_{ij}))\, v(h_j), \sum_j g(m_{ij})\, m_{ij}\Big),
    \quad X_i^k \leftarrow X_i^k + \sum_j \frac{X_i^k - X_j^k}{|X_i^k - X_j^k| + 1}\, \phi_x^k(m_{ij})

References:
    Satorras et al., E(n) Equivariant Graph Neural Networks (2021), eq. 3-6; Hoogeboom et al., Equivariant Diffusion for
    Molecule Generation in 3D (2022), section 3.1, appendix B; Vignac et al., MiDi (2023) for pair features; Irwin et
    al., SemlaFlow (2024), section 3, for several vectors and attention; Unke and Meuwly, PhysNet (2019), eq. 7, for
    the radial functions; Chen et al., Analog Bits (2022), section 3.2, for the network's own last estimate as input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.transformer import checkpointed, time_features

__all__ = ["EquivariantNetwork", "Geometry"]

RADIAL = 32
"""Radial functions of a distance."""


class Geometry(NamedTuple):
    """What goes in and comes out.

    Attributes:
        positions: (B, N, 3).
        features: (B, N, F), unchanged by rotations.
        pairs: (B, N, N, P), symmetric, or None.
    """

    positions: Tensor
    features: Tensor
    pairs: Tensor | None = None


def _mlp(narrow: int, width: int, wide: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(narrow, width), nn.SiLU(), nn.Linear(width, wide))


def _radial(distance: Tensor) -> Tensor:
    """(...) distances as (..., RADIAL) bumps, narrow where points are close."""
    centres = torch.linspace(0, 1, RADIAL, dtype=distance.dtype, device=distance.device)
    return torch.exp(-((RADIAL / 2) ** 2) * (torch.exp(-distance)[..., None] - centres).square())


def _apart(x: Tensor) -> Tensor:
    """Distances (B, N, N, K) between the vectors (B, N, K, 3) of every two points."""
    return (x[:, :, None] - x[:, None]).square().sum(-1).clamp(min=1e-8).sqrt()


class _Layer(nn.Module):
    def __init__(self, width: int, pair: int, message: int, heads: int, vectors: int, told: int) -> None:
        super().__init__()
        self.heads = heads
        self.sender, self.receiver = nn.Linear(width, message), nn.Linear(width, message, bias=False)
        self.edge = nn.Linear(pair + 2 * vectors + RADIAL, message, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(message, message), nn.SiLU())
        self.gate, self.attend = nn.Linear(message, 1), nn.Linear(message, heads)
        self.value = nn.Linear(width, width, bias=False)
        self.node = _mlp(2 * width + message, 2 * width, width)
        self.pair = _mlp(message, message, pair)
        last = nn.Linear(message, vectors, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=1e-2)
        self.move = nn.Sequential(nn.Linear(message, message), nn.SiLU(), last)
        self.condition = nn.Linear(told, 2 * width)
        for parameter in self.condition.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, h: Tensor, e: Tensor, c: Tensor, both: Tensor, reach: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, features and pairs after one round of messages, under ``c`` (B, 1 or N, told); ``both`` (B, N, N, 1)
        says which pairs exist."""
        scale, shift = self.condition(c).chunk(2, dim=-1)
        told = torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]).to(shift.dtype), 1 + scale)
        distance = _apart(x)
        inner = (x[:, :, None] * x[:, None]).sum(-1) / 4
        seen = torch.cat([F.layer_norm(e, e.shape[-1:]).to(x), distance, inner, _radial(distance[..., 0])], dim=-1)
        m = self.message(self.sender(told)[:, :, None] + self.receiver(told)[:, None] + self.edge(seen))
        m = m * both.to(m)
        chances = self.attend(m).to(x).masked_fill(both == 0, -1e9).softmax(2) * both
        value = self.value(told).unflatten(-1, (self.heads, -1))
        gathered = torch.einsum("bijh,bjhd->bihd", chances.to(value), value).flatten(2)
        total = (torch.sigmoid(self.gate(m)) * m).sum(2) / reach
        h = h + self.node(torch.cat([told, gathered, total.to(told)], dim=-1))
        e = (e + self.pair(m + m.transpose(1, 2))) * both
        push = torch.tanh(self.move(m)).to(x) / (distance + 1) * both
        return x + ((x[:, :, None] - x[:, None]) * push[..., None]).sum(2), h, e


class EquivariantNetwork(nn.Module):
    """``network(geometry, t, mask=..., context=..., estimate=...)``: what to predict for positions, features and pairs.

    Args:
        features: channels of a point.
        pairs: channels of a pair; 0: there are none.
        width: of the hidden features.
        pair_width: of the hidden pairs.
        depth: rounds of messages.
        context: channels of a condition for each set (a property, say); 0: there is none.
        message: width of a message.
        heads: of the attention; they divide ``width``.
        vectors: of each point, inside.
        recall: the network can be told its last estimate.
        reach: sums of messages are divided by this; about the number of neighbours.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].

    Attributes:
        told: channels of what points are told by the time and the condition.
        recompute: forget what layers compute inside, and compute it again for the gradient.
    """

    def __init__(
        self,
        features: int,
        pairs: int = 0,
        width: int = 128,
        pair_width: int = 32,
        depth: int = 6,
        context: int = 0,
        message: int = 64,
        heads: int = 4,
        vectors: int = 4,
        recall: bool = False,
        reach: float = 10.0,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.reach, self.time_scale, self.recompute, self.pairs = reach, time_scale, False, pairs
        self.recall, self.told, inputs, told = recall, width // 2, 2 if recall else 1, width // 2
        self.embed = nn.Linear(inputs * features, width)
        self.embed_pair = nn.Linear(inputs * (pairs + RADIAL), pair_width)
        self.mix = nn.Linear(inputs, vectors, bias=False)
        self.unmix = nn.Linear(vectors, 1, bias=False)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, told))
        self.context = _mlp(context, width, told) if context else None
        self.layers = nn.ModuleList([_Layer(width, pair_width, message, heads, vectors, told) for _ in range(depth)])
        self.out = nn.Linear(width, features)
        self.out_pair = _mlp(pair_width, pair_width, pairs) if pairs else None

    def forward(
        self,
        geometry: Geometry,
        t: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        estimate: Geometry | None = None,
        more: Tensor | None = None,
    ) -> Geometry:
        """One evaluation.

        Args:
            geometry: the state.
            t: (B,) times, or (B, N) of each point.
            mask: (B, N) True where there is a point.
            context: (B, context).
            estimate: what was last found of the clean state, where the network can ``recall``; zeros stand for none.
            more: (B, 1 or N, width / 2), added to what each point is told by the time and the context.

        Returns:
            Positions' displacement with zero mean over the points that are there, features and pairs; zeros elsewhere.
        """
        x = geometry.positions
        there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        apart = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        both = (there[:, :, None] & there[:, None] & apart)[..., None].to(x)
        times = t if t.dim() == 2 else t[:, None]
        c = self.time(time_features(times.flatten(), 256, self.time_scale).to(x.dtype)).unflatten(0, times.shape)
        if self.context is not None and context is not None:
            c = c + self.context(context)[:, None]
        if more is not None:
            c = c + more
        begin, hidden, pair = self._begin([geometry, *([estimate] if self.recall else [])], there[..., None], both)
        vectors, c = begin, F.silu(c)
        for layer in self.layers:
            vectors, hidden, pair = checkpointed(self.recompute, layer, vectors, hidden, pair, c, both, self.reach)
        with torch.autocast(x.device.type, enabled=False):
            displacement = self.unmix((vectors - begin).transpose(2, 3)).squeeze(-1)
        features = self.out(F.layer_norm(hidden, hidden.shape[-1:])) * there[..., None]
        pairs = None if self.out_pair is None else self.out_pair(F.layer_norm(pair, pair.shape[-1:])) * both
        return Geometry(_centred(displacement, there[..., None]), features, pairs)

    def _begin(self, inputs: list[Geometry | None], here: Tensor, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (B, N, K, 3), features and pairs before the first layer."""
        first = inputs[0]
        assert first is not None
        places, features, pairs = [], [], []
        for geometry in inputs:
            positions, seen, e = first if geometry is None else geometry
            known = 0.0 if geometry is None else 1.0
            places.append(_centred(positions, here) * known)
            features.append(seen.masked_fill(~here, 0.0) * known)
            between = _apart(places[-1][:, :, None])[..., 0]
            parts = [_radial(between) * known]
            if self.pairs:
                edges = both.new_zeros(*both.shape[:3], self.pairs) if e is None else e
                parts.insert(0, (edges + edges.transpose(1, 2)) / 2 * known)
            pairs.append(torch.cat(parts, -1))
        with torch.autocast(both.device.type, enabled=False):
            vectors = self.mix(torch.stack(places, -1)).transpose(2, 3)
        return vectors, self.embed(torch.cat(features, -1)).to(both), self.embed_pair(torch.cat(pairs, -1)) * both


def _centred(x: Tensor, here: Tensor) -> Tensor:
    """Positions less their mean over the points that are there; zeros elsewhere."""
    x = x.masked_fill(~here, 0.0)
    count = here.to(x).sum(1, keepdim=True).clamp(min=1)
    return (x - x.sum(1, keepdim=True) / count).masked_fill(~here, 0.0)
