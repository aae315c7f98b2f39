r"""Guidance: which evaluations a row needs, and what to make of them.

Two methods. ``branches`` lists the evaluations, each a denoiser with a condition; ``combine`` turns their clean
estimates into one, names the direction to re-noise along, and returns what it wants to remember. It evaluates nothing
itself, so an engine may stack the branches of many requests into one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Output, Point
from perrin.diffusion.state import State

__all__ = ["Branch", "Combined", "Guidance", "Memory", "Unguided", "evaluate"]

Memory = Mapping[str, State]
"""What a guidance keeps from row to row, by name."""


class Branch(NamedTuple):
    """One evaluation: a denoiser and its condition."""

    denoiser: Denoiser
    condition: Condition


class Combined(NamedTuple):
    """What a row goes on with: the clean estimate, the direction to re-noise along, and memory for the next row."""

    estimate: Any
    direction: Any
    memory: Memory


class Guidance(Protocol):
    """Decides what is evaluated at a row and how the outputs combine."""

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        """The evaluations at time ``t``."""
        ...

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        """One clean estimate from those of the branches, each of the shape of ``x``."""
        ...


@dataclass(frozen=True)
class Unguided(Guidance):
    """The denoiser as it is."""

    denoiser: Denoiser

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return (Branch(self.denoiser, condition),)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        return Combined(outputs[0], outputs[0], memory)


def evaluate(branches: Sequence[Branch], x: State, point: Point) -> list[Output]:
    """The outputs of all branches at ``x``; those of one denoiser are stacked into one evaluation.

    Args:
        branches: what to evaluate.
        x: (B, ...) noisy samples, or fields.
        point: the time, one for the whole batch, with its levels.

    Returns:
        One output per branch.
    """
    first = branches[0].denoiser
    if len(branches) > 1 and isinstance(x, Tensor) and all(b.denoiser is first for b in branches):
        stacked = _stack([b.condition for b in branches], len(x))
        if stacked is not None:
            clean, variance = first.evaluate(torch.cat([x] * len(branches)), point, stacked)
            parts: list[Any] = [t.chunk(len(branches)) for t in (clean, variance) if isinstance(t, Tensor)]
            return [Output(*part) for part in zip(*parts, strict=True)]
    return [b.denoiser.evaluate(x, point, b.condition) for b in branches]


def _stack(conditions: Sequence[Condition], batch: int) -> dict[str, Any] | None:
    """Conditions on top of each other, or None where their shapes differ."""
    keys = conditions[0].keys()
    if any(c.keys() != keys for c in conditions):
        return None
    stacked = {}
    for key in keys:
        values = [c[key] for c in conditions]
        if not all(isinstance(v, Tensor) and v.shape[1:] == values[0].shape[1:] for v in values):
            return None
        stacked[key] = torch.cat([v.expand(batch, *v.shape[1:]) for v in values])
    return stacked
