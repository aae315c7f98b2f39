r"""E(3)-equivariant network over points with features, and pairs with features, under masks.

Distances alone enter the messages, and positions move along differences of positions; so turning, mirroring or moving
what comes in does the same to what comes out.

.. math::
    m_{ij} = \phi_e(h_i, h_j, d_{ij}^2, e_{ij}), \quad
    e_{ij} \leftarrow e_{ij} + \phi_p(m_{ij} + m_{ji}), \quad
    h_i \leftarrow h_i + \phi_h\Big(h_i, \sum_j g(m_{ij})\, m_{ij}\Big), \quad
    x_i \leftarrow x_i + \sum_j \frac{x_i - x_j}{d_{ij} + 1}\, \phi_x(m_{ij})

References:
    Satorras et al., E(n) Equivariant Graph Neural Networks (2021), eq. 3-6; Hoogeboom et al., Equivariant Diffusion for
    Molecule Generation in 3D (2022), section 3.1, appendix B; Vignac et al., MiDi (2023) for pair features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn.transformer import checkpointed, time_features

__all__ = ["EquivariantNetwork", "Geometry"]


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


class _Layer(nn.Module):
    def __init__(self, width: int, pair: int) -> None:
        super().__init__()
        self.sender, self.receiver = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(pair + 2, width, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Linear(width, 1)
        self.node = _mlp(2 * width, width, width)
        self.pair = _mlp(width, width, pair)
        last = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=1e-3)
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)
        self.condition = nn.Linear(width, 2 * width)
        for parameter in self.condition.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, h: Tensor, e: Tensor, start: Tensor, c: Tensor, both: Tensor, reach: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, features and pairs after one round of messages; ``both`` (B, N, N, 1) says which pairs exist."""
        scale, shift = self.condition(c).unsqueeze(1).chunk(2, dim=-1)
        told = torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale)
        difference = x[:, :, None] - x[:, None]
        square = difference.square().sum(-1, keepdim=True)
        edges = self.edge(torch.cat([square, start, e], dim=-1))
        m = self.message(self.sender(told)[:, :, None] + self.receiver(told)[:, None] + edges)
        m = m * both
        total = (torch.sigmoid(self.gate(m)) * m).sum(2) / reach
        h = h + self.node(torch.cat([told, total], dim=-1))
        e = (e + self.pair(m + m.transpose(1, 2))) * both
        step = difference / (square.clamp(min=1e-8).sqrt() + 1) * torch.tanh(self.move(m)) * both
        return x + step.sum(2), h, e


class EquivariantNetwork(nn.Module):
    """``network(geometry, t, mask=..., context=...)``: what to predict for positions, features and pairs.

    Args:
        features: channels of a point.
        pairs: channels of a pair; 0: there are none.
        width: of the hidden features.
        pair_width: of the hidden pairs.
        depth: rounds of messages.
        context: channels of a condition for each set (a property, say); 0: there is none.
        reach: sums of messages are divided by this; about the number of neighbours.
        time_scale: times are multiplied by this before their sines are taken; 1000 for times in [0, 1].

    Attributes:
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
        reach: float = 10.0,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.reach, self.time_scale, self.recompute, self.pairs = reach, time_scale, False, pairs
        self.embed = nn.Linear(features, width)
        self.embed_pair = nn.Linear(pairs, pair_width) if pairs else None
        self.pair_width = pair_width
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.context = _mlp(context, width, width) if context else None
        self.layers = nn.ModuleList([_Layer(width, pair_width) for _ in range(depth)])
        self.out = nn.Linear(width, features)
        self.out_pair = nn.Linear(pair_width, pairs) if pairs else None

    def forward(
        self, geometry: Geometry, t: Tensor, mask: Tensor | None = None, context: Tensor | None = None
    ) -> Geometry:
        """One evaluation.

        Args:
            geometry: the state.
            t: (B,) times.
            mask: (B, N) True where there is a point.
            context: (B, context).

        Returns:
            Positions' displacement with zero mean over the points that are there, features and pairs; zeros elsewhere.
        """
        x, h, e = geometry
        there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        apart = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        both = (there[:, :, None] & there[:, None] & apart)[..., None].to(x)
        here = there[..., None]
        x = x.masked_fill(~here, 0.0)
        c = self.time(time_features(t, 256, self.time_scale).to(x.dtype))
        if self.context is not None and context is not None:
            c = c + self.context(context)
        c = F.silu(c)
        hidden = self.embed(h.masked_fill(~here, 0.0))
        if self.embed_pair is not None and e is not None:
            pair = self.embed_pair((e + e.transpose(1, 2)) / 2) * both
        else:
            pair = x.new_zeros(*both.shape[:3], self.pair_width)
        start = (x[:, :, None] - x[:, None]).square().sum(-1, keepdim=True) * both
        moved = x
        for layer in self.layers:
            moved, hidden, pair = checkpointed(self.recompute, layer, moved, hidden, pair, start, c, both, self.reach)
        count = here.to(x).sum(1, keepdim=True).clamp(min=1)
        displacement = (moved - x).masked_fill(~here, 0.0)
        displacement = (displacement - displacement.sum(1, keepdim=True) / count).masked_fill(~here, 0.0)
        features = self.out(hidden).masked_fill(~here, 0.0)
        pairs = None if self.out_pair is None else self.out_pair(pair) * both
        return Geometry(displacement, features, pairs)
