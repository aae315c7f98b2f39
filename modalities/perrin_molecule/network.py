"""Molecules as states, and the network that says what a noised one was.

A state has the fields ``positions`` (B, N, 3) in units of the data's deviation, ``kinds`` (B, N) and ``bonds`` (B, P),
classes of atoms and of the list of pairs (see `perrin_molecule.data.pairs_of`), under a mask of atoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.diffusion.state import Fields
from perrin.nn import EquivariantNetwork, Geometry
from perrin_molecule.data import BONDS, KINDS, pairs_of

__all__ = ["MoleculeNetwork", "estimate_of"]


class MoleculeNetwork(nn.Module):
    """``network(state, t, context=..., estimate=...)``: the clean positions, and logits of kinds and bonds.

    Args:
        context: channels of the condition; 0: there is none.
        options: of `perrin.nn.EquivariantNetwork`.
    """

    def __init__(self, context: int = 0, **options: Any) -> None:
        super().__init__()
        self.body = EquivariantNetwork(len(KINDS), BONDS, context=context, recall=True, **options)

    def forward(
        self,
        state: Fields,
        t: Tensor,
        context: Tensor | None = None,
        estimate: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """One evaluation.

        Args:
            state: the noised molecules.
            t: (B,) times.
            context: (B, C).
            estimate: what was last found: ``positions``, and chances of ``kinds`` (B, N, K) and ``bonds`` (B, P, 4).
        """
        mask = state.mask
        x = state["positions"]
        count = x.shape[1]
        i, j = (index.to(x.device, non_blocking=True) for index in pairs_of(count))
        seen = Geometry(
            x,
            F.one_hot(state["kinds"], len(KINDS)).to(x),
            _square(F.one_hot(state["bonds"], BONDS).to(x), i, j, count),
        )
        known = None
        if estimate is not None:
            known = Geometry(estimate["positions"], estimate["kinds"], _square(estimate["bonds"], i, j, count))
        found = self.body(seen, t, mask, context, known)
        assert found.pairs is not None
        return {"positions": x + found.positions, "kinds": found.features, "bonds": found.pairs[:, i, j]}


def _square(listed: Tensor, i: Tensor, j: Tensor, count: int) -> Tensor:
    """(B, P, C) of the list of pairs as (B, N, N, C)."""
    square = listed.new_zeros(len(listed), count, count, listed.shape[-1])
    square[:, i, j] = listed
    square[:, j, i] = listed
    return square


def estimate_of(answer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the network is told of its last answer: positions, and chances instead of logits."""
    return {
        name: value.detach().float() if name == "positions" else torch.softmax(value.detach().float(), -1)
        for name, value in answer.items()
    }
