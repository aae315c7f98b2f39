"""Molecules as states, and the network that says what a noised one was.

A state has the fields ``positions`` (B, N, 3) in units of the data's deviation, ``kinds`` (B, N) and ``bonds`` (B, P),
classes of atoms and of the list of pairs (see `perrin_molecule.data.pairs_of`), under a mask of atoms.

Some atoms may be fixed: they are clean in the state, the network is told that their time is zero, and they come back as
they were. Then the state lies where they do, not around the origin.
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

__all__ = ["MoleculeNetwork", "estimate_of", "restored"]

CERTAIN = 30.0
"""The logit of what is known."""


class MoleculeNetwork(nn.Module):
    """``network(state, t, context=..., estimate=...)``: the clean positions, and logits of kinds and bonds.

    Args:
        context: channels of the condition; 0: there is none.
        more: channels of a further condition, which says also which atoms are fixed; 0: there is none, and no atom is.
        options: of `perrin.nn.EquivariantNetwork`.
    """

    def __init__(self, context: int = 0, more: int = 0, **options: Any) -> None:
        super().__init__()
        self.context = context
        self.body = EquivariantNetwork(len(KINDS), BONDS, context=context, recall=True, **options)
        self.more: nn.Sequential | None = None
        if more:
            told = self.body.told
            last = nn.Linear(told, told)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.more = nn.Sequential(nn.Linear(more + 2, told), nn.SiLU(), last)

    def forward(
        self,
        state: Fields,
        t: Tensor,
        context: Tensor | None = None,
        estimate: Mapping[str, Tensor] | None = None,
        more: Tensor | None = None,
        fixed: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One evaluation.

        Args:
            state: the noised molecules.
            t: (B,) times.
            context: (B, C).
            estimate: what was last found: ``positions``, and chances of ``kinds`` (B, N, K) and ``bonds`` (B, P, 4).
            more: (B, C) further condition, where the network has one.
            fixed: (B, N) 1 for atoms that the state has as they are to be, else 0; where there is ``more``.
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
        told = None
        if self.more is not None and more is not None:
            here = x.new_zeros(x.shape[:2]) if fixed is None else fixed.to(x)
            told = self._told(more, here)
            t = t[:, None] * (1 - here)
        found = self.body(seen, t, mask, context, known, told)
        assert found.pairs is not None
        answer = {"positions": x + found.positions, "kinds": found.features, "bonds": found.pairs[:, i, j]}
        return answer if fixed is None else _kept(answer, state, fixed.to(x), i, j)

    def _told(self, more: Tensor, here: Tensor) -> Tensor:
        """(B, N, told) of the further condition (B, C), and of which atoms are fixed (B, N)."""
        assert self.more is not None
        some = here.amax(1, keepdim=True).expand_as(here)
        inputs = torch.cat([more[:, None].expand(-1, here.shape[1], -1), here[..., None], some[..., None]], -1)
        told: Tensor = self.more(inputs)
        return told


def _kept(answer: dict[str, Tensor], state: Fields, fixed: Tensor, i: Tensor, j: Tensor) -> dict[str, Tensor]:
    """The answer laid where the fixed atoms lie, which are as the state has them."""
    x, here = state["positions"], fixed[..., None]
    away = ((answer["positions"] - x) * here).sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp(min=1)
    pair = (fixed[:, i] * fixed[:, j])[..., None]
    found = {"positions": torch.where(here > 0, x, answer["positions"] - away)}
    for name, known, classes in (("kinds", here, len(KINDS)), ("bonds", pair, BONDS)):
        certain = F.one_hot(state[name], classes).to(answer[name]) * CERTAIN
        found[name] = torch.where(known > 0, certain, answer[name])
    return found


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


def restored(state: Fields, clean: Mapping[str, Tensor], fixed: Tensor) -> Fields:
    """``state`` with the atoms of ``fixed`` (B, N), and the pairs of two of them, as they are in ``clean``."""
    i, j = (index.to(fixed.device, non_blocking=True) for index in pairs_of(fixed.shape[1]))
    here = fixed > 0
    where = {"positions": here[..., None], "kinds": here, "bonds": here[:, i] & here[:, j]}
    return Fields({name: torch.where(where[name], clean[name], x) for name, x in state.items()}, state.mask)
