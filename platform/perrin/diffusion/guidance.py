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

from perrin.diffusion.denoiser import Condition, Denoiser
from perrin.errors import InvalidInput

__all__ = ["Branch", "ClassifierFree", "Combined", "Guidance", "Unguided", "classifier_free", "evaluate"]

Memory = Mapping[str, Tensor]


class Branch(NamedTuple):
    """One evaluation: a denoiser and its condition."""

    denoiser: Denoiser
    condition: Condition


class Combined(NamedTuple):
    """What a row goes on with: the clean estimate, the direction to re-noise along, and memory for the next row."""

    estimate: Tensor
    direction: Tensor
    memory: Memory


class Guidance(Protocol):
    """Decides what is evaluated at a row and how the outputs combine."""

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        """The evaluations at time ``t``."""
        ...

    def combine(self, outputs: Sequence[Tensor], x: Tensor, t: float, memory: Memory) -> Combined:
        """One clean estimate from those of the branches, each of the shape of ``x``."""
        ...


@dataclass(frozen=True)
class Unguided(Guidance):
    """The denoiser as it is."""

    denoiser: Denoiser

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return (Branch(self.denoiser, condition),)

    def combine(self, outputs: Sequence[Tensor], x: Tensor, t: float, memory: Memory) -> Combined:
        return Combined(outputs[0], outputs[0], memory)


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    r"""Classifier-free guidance.

    .. math:: D = D_\varnothing + w\,(D_c - D_\varnothing)

    Attributes:
        denoiser: conditional, trained with condition dropout.
        scale: w; 1 is no guidance, and costs one evaluation.
        null: the condition that stands for none.
        interval: times (low, high) in which guidance acts; outside, one evaluation.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance (2022), eq. 6;
        Kynkaanniemi et al., Applying Guidance in a Limited Interval (2024).
    """

    denoiser: Denoiser
    scale: float
    null: Condition
    interval: tuple[float, float] = (-float("inf"), float("inf"))

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1000:
            raise InvalidInput("guidance", self.scale, "a finite number of at least 0 and at most 1000")

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        conditional = Branch(self.denoiser, condition)
        if self.scale == 1 or not self.interval[0] <= t <= self.interval[1]:
            return (conditional,)
        return (conditional, Branch(self.denoiser, self.null))

    def combine(self, outputs: Sequence[Tensor], x: Tensor, t: float, memory: Memory) -> Combined:
        if len(outputs) == 1:
            return Combined(outputs[0], outputs[0], memory)
        conditional, null = outputs
        guided = null + self.scale * (conditional - null)
        return Combined(guided, guided, memory)


def classifier_free(
    denoiser: Denoiser,
    scale: float,
    null: Condition,
    interval: tuple[float, float] = (-float("inf"), float("inf")),
) -> ClassifierFree:
    """`ClassifierFree` guidance of ``denoiser``."""
    return ClassifierFree(denoiser, scale, null, interval)


def evaluate(branches: Sequence[Branch], x: Tensor, t: float, alpha: float, sigma: float) -> list[Tensor]:
    """The clean estimates of all branches at ``x``; those of one denoiser are stacked into one evaluation.

    Args:
        branches: what to evaluate.
        x: (B, ...) noisy samples.
        t: the time, and its ``alpha`` and ``sigma``.

    Returns:
        One (B, ...) tensor per branch.
    """
    first = branches[0].denoiser
    if len(branches) > 1 and all(b.denoiser is first for b in branches):
        stacked = _stack([b.condition for b in branches], len(x))
        if stacked is not None:
            out = first(torch.cat([x] * len(branches)), t, stacked, alpha=alpha, sigma=sigma)
            return list(out.chunk(len(branches)))
    return [b.denoiser(x, t, b.condition, alpha=alpha, sigma=sigma) for b in branches]


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
