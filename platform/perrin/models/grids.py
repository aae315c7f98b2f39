"""The time grid that a card asks for. NumPy, no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from perrin.diffusion import grid as grids
from perrin.diffusion.grid import Grid, resolution_shift
from perrin.diffusion.process import Flow, FromBetas, Process
from perrin.errors import ModelError
from perrin.models.card import ModelCard

__all__ = ["grid_of"]

DISTILLED = ("lcm", "tcd")
"""Samplers of models that were distilled to few steps, by themselves or by an adapter; they have their own times."""


def grid_of(card: ModelCard, process: Process, steps: int, tokens: int = 0, sampler: str = "") -> Grid:
    """The grid of so many steps on ``process``, as the card's ``grid`` has it.

    Without a kind it is shifted for a flow, and even in log-SNR for others. ``by_tokens`` finds the shift of a flow for
    a picture of that many tokens; ``end: cleanest`` ends at the cleanest trained time, and not beyond it.

    Raises:
        ModelError: the card asks for a grid that is unknown.
    """
    options = dict(card.grid)
    if card.checkpoint is not None and sampler in DISTILLED and isinstance(process, FromBetas):
        options = {"kind": "distilled", **{k: v for k, v in options.items() if k == "original"}}
    kind = options.pop("kind", "shifted" if isinstance(process, Flow) else "log_snr")
    end = options.pop("end", "clean")
    if kind not in grids.__all__:
        raise ModelError(f"model {card.name}: its grid is of kind {kind!r}, wanted one of perrin.diffusion.grid")
    low_high = options.pop("by_tokens", None)
    if low_high is not None:
        (low, first), (high, last) = low_high
        kind, options["shift"] = "shifted", resolution_shift(tokens or low, (low, first), (high, last))
    options = {"shift": 1.0, **options} if kind == "shifted" else options
    made = cast(Grid, getattr(grids, kind)(process, steps, **options))
    if end == "clean":
        return made
    alpha, sigma = (np.append(levels[:-1], level) for levels, level in zip(
        (made.alpha, made.sigma), (process.alpha(process.t_min), process.sigma(process.t_min)), strict=True
    ))  # fmt: skip
    return replace(made, alpha=alpha, sigma=sigma)
