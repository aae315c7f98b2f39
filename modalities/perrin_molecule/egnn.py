r"""The network of EDM and GeoLDM: messages between all atoms, which move features and positions.

.. math::
    m_{ij} = \sigma(a(\mu_{ij}))\, \mu_{ij}, \quad \mu_{ij} = \phi_e(h_i, h_j, d_{ij}^2, D_{ij}^2), \qquad
    h_i \leftarrow h_i + \phi_h(h_i, \textstyle\sum_j m_{ij}), \\
    x_i \leftarrow x_i + \sum_j \frac{x_i - x_j}{d_{ij} + 1}\, 15 \tanh \phi_x(h_i, h_j, d_{ij}^2, D_{ij}^2)

with d the distances now and D those at first.

References:
    Satorras et al., E(n) Equivariant Graph Neural Networks (2021), eq. 3-6; Hoogeboom et al., EDM (2022), eq. 12-14 and
    appendix B; Xu et al., Geometric Latent Diffusion Models (2023), section 4.1, for the decoder.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.diffusion.state import Fields, zero_centre

__all__ = ["Egnn"]

REACH = 15.0
"""The furthest that one message moves an atom, in the units of positions."""


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class _Message(nn.Module):
    def __init__(self, width: int, attention: bool) -> None:
        super().__init__()
        self.edge = _mlp(2 * width + 2, width, width)
        self.node = _mlp(2 * width, width, width)
        self.attend = nn.Linear(width, 1) if attention else None

    def forward(self, h: Tensor, seen: Tensor, both: Tensor) -> Tensor:
        """Features (B, N, width) after one round of messages."""
        m = F.silu(self.edge(_pairs(h, seen)))
        if self.attend is not None:
            m = m * torch.sigmoid(self.attend(m))
        moved: Tensor = h + self.node(torch.cat([h, (m * both).sum(2)], -1))
        return moved


class _Block(nn.Module):
    def __init__(self, width: int, rounds: int, attention: bool) -> None:
        super().__init__()
        self.messages = nn.ModuleList([_Message(width, attention) for _ in range(rounds)])
        last = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=1e-3)
        self.move = nn.Sequential(*_mlp(2 * width + 2, width, width), nn.SiLU(), last)

    def forward(self, h: Tensor, x: Tensor, first: Tensor, here: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        """Features and positions after a few rounds of messages and one move."""
        away, squared = _apart(x)
        seen = torch.cat([squared, first], -1)
        for message in self.messages:
            h = message(h, seen, both) * here
        along = away / ((squared + 1e-8).sqrt() + 1)
        push = torch.tanh(self.move(_pairs(h, seen))) * REACH
        return h, (x + (along * push * both).sum(2)) * here


class Egnn(nn.Module):
    """``network(state, t)``: of ``positions`` (B, N, 3) and ``features`` (B, N, F), what is predicted of both.

    Args:
        features: F.
        outputs: features that come out; F if left out.
        width: of the hidden features.
        depth: blocks.
        rounds: of messages in a block.
        attention: messages are weighed.
        steps: that the time counts; 0: it is told no time, and positions come out instead of their displacement.
    """

    def __init__(
        self,
        features: int,
        width: int,
        depth: int,
        outputs: int | None = None,
        rounds: int = 1,
        attention: bool = True,
        steps: int = 0,
    ) -> None:
        super().__init__()
        self.steps, timed = steps, int(steps > 0)
        self.embed = nn.Linear(features + timed, width)
        self.unembed = nn.Linear(width, (features if outputs is None else outputs) + timed)
        self.blocks = nn.ModuleList([_Block(width, rounds, attention) for _ in range(depth)])

    def forward(self, state: Fields, t: Tensor | None = None) -> dict[str, Tensor]:
        """One evaluation; ``t`` (B,) counts steps."""
        begin, h, mask = state["positions"], state["features"], state.mask
        assert mask is not None
        here = mask[..., None].to(begin)
        apart = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        both = (mask[:, :, None] & mask[:, None] & apart)[..., None].to(begin)
        if self.steps and t is not None:
            h = torch.cat([h, (t / self.steps)[:, None, None].expand(*h.shape[:2], 1)], -1)
        x = begin * here
        first = _apart(x)[1]
        h = self.embed(h * here)
        for block in self.blocks:
            h, x = block(h, x, first, here, both)
        found = self.unembed(h) * here
        return {
            "positions": zero_centre(x - begin * here if self.steps else x, mask),
            "features": found[..., :-1] if self.steps else found,
        }


def _apart(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences (B, N, N, 3) and squared distances (B, N, N, 1)."""
    away = x[:, :, None] - x[:, None]
    return away, away.square().sum(-1, keepdim=True)


def _pairs(h: Tensor, seen: Tensor) -> Tensor:
    """(B, N, N, 2 width + 2) what both ends of a pair are, and their distances."""
    count = h.shape[1]
    ends = h[:, :, None].expand(-1, -1, count, -1), h[:, None].expand(-1, count, -1, -1)
    return torch.cat([*ends, seen], -1)
