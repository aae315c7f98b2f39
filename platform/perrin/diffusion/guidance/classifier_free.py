r"""Guidance between two estimates: classifier-free and its refinements, autoguidance, perturbed networks.

With a good estimate D_c and a worse one D_0 (no condition, a weaker model, a network with a part switched off) all of
these go on past the better one,

.. math:: D = D_0 + w\,(D_c - D_0)

and differ in what they do to the difference, the direction to re-noise along, or the size of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser
from perrin.diffusion.guidance.base import Branch, Combined, Guidance, Memory
from perrin.diffusion.state import inner, items_of, like, norm, rows_of
from perrin.errors import InvalidInput

__all__ = [
    "APG",
    "CFGPlusPlus",
    "CFGZeroStar",
    "ClassifierFree",
    "apg",
    "autoguidance",
    "cfg_plus_plus",
    "cfg_zero_star",
    "classifier_free",
    "perturbed",
]

EVERYWHERE = (-float("inf"), float("inf"))


def _scaled(x: Any, factor: Tensor) -> Any:
    """Every sample of ``x`` times its own number of ``factor`` (B,)."""
    return like(x, {name: part * rows_of(factor.to(part.dtype), part) for name, part in items_of(x).items()})


def _deviation(x: Any) -> Tensor:
    """Standard deviation of each sample of a tensor, or of all fields together: (B,)."""
    flat = torch.cat([part.flatten(1) for part in items_of(x).values()], dim=1)
    return flat.std(dim=1)


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """Goes past ``better`` from ``worse`` by the factor ``scale``.

    Attributes:
        denoiser: gives the better estimate, under the run's own condition.
        scale: w; 1 is no guidance, and costs one evaluation.
        null: condition of the worse estimate; None takes the run's own.
        worse: denoiser of the worse estimate; the same one if None.
        interval: times (low, high) in which guidance acts; outside, one evaluation.
        rescale: 0 to 1: how far the result is brought back to the better estimate's deviation.
        schedule: from the time to a factor on w - 1.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance (2022), eq. 6;
        Kynkaanniemi et al., Applying Guidance in a Limited Interval (2024);
        Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (2023), eq. 15-16;
        Karras et al., Guiding a Diffusion Model with a Bad Version of Itself (2024), eq. 3.
    """

    denoiser: Denoiser
    scale: float
    null: Condition | None = None
    worse: Denoiser | None = None
    interval: tuple[float, float] = EVERYWHERE
    rescale: float = 0.0
    schedule: Callable[[float], float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1000:
            raise InvalidInput("guidance", self.scale, "a finite number of at least 0 and at most 1000")
        if not 0 <= self.rescale <= 1:
            raise InvalidInput("rescale", self.rescale, "a number of at least 0 and at most 1")

    def weight(self, t: float) -> float:
        """w at time ``t``."""
        if not self.interval[0] <= t <= self.interval[1]:
            return 1.0
        return 1 + (self.scale - 1) * (self.schedule(t) if self.schedule else 1.0)

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        better = Branch(self.denoiser, condition)
        if self.weight(t) == 1:
            return (better,)
        return (better, Branch(self.worse or self.denoiser, condition if self.null is None else self.null))

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        if len(outputs) == 1:
            return Combined(outputs[0], outputs[0], memory)
        better, worse = outputs
        guided = worse + (better - worse) * self.weight(t)
        if self.rescale:
            ratio = _deviation(better) / _deviation(guided).clamp(min=1e-12)
            guided = _scaled(guided, 1 + self.rescale * (ratio - 1))
        return Combined(guided, guided, memory)


@dataclass(frozen=True)
class CFGPlusPlus(ClassifierFree):
    """CFG++: denoises with an interpolation (scale 0 to 1), re-noises along the unconditional estimate.

    References:
        Chung et al., CFG++: Manifold-constrained Classifier-Free Guidance (2024), algorithm 2.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1:
            raise InvalidInput("guidance", self.scale, "a number of at least 0 and at most 1 for CFG++")

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return (Branch(self.denoiser, condition), Branch(self.denoiser, condition if self.null is None else self.null))

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        better, worse = outputs
        return Combined(worse + (better - worse) * self.scale, worse, memory)


@dataclass(frozen=True)
class APG(ClassifierFree):
    """Adaptive projected guidance: the difference with momentum, limited in length, its parallel part damped.

    Attributes:
        parallel: eta, what is kept of the difference's part along the better estimate.
        momentum: beta, usually negative: earlier differences are pushed away from.
        threshold: largest length of the difference; 0 for none.

    References:
        Sadat et al., Eliminating Oversaturation and Artifacts of High Guidance Scales (2024), algorithm 1.
    """

    parallel: float = 0.0
    momentum: float = -0.5
    threshold: float = 0.0

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        if len(outputs) == 1:
            return Combined(outputs[0], outputs[0], memory)
        better, worse = outputs
        difference = better - worse
        if "difference" in memory:
            difference = difference + memory["difference"] * self.momentum
        kept = {**memory, "difference": difference}
        if self.threshold:
            difference = _scaled(difference, (self.threshold / norm(difference).clamp(min=1e-12)).clamp(max=1))
        along = _scaled(better, inner(difference, better) / inner(better, better).clamp(min=1e-12))
        update = (difference - along) + along * self.parallel
        guided = better + update * (self.weight(t) - 1)
        return Combined(guided, guided, kept)


@dataclass(frozen=True)
class CFGZeroStar(ClassifierFree):
    """CFG-Zero*: the worse velocity is first scaled to fit the better one, and the first rows do not move at all.

    Attributes:
        hold: times above this do not move the sample.

    References:
        Fan et al., CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (2025), eq. 12, algorithm 1.
    """

    hold: float = float("inf")

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        if t > self.hold:
            return Combined(x, x, memory)
        if len(outputs) == 1:
            return Combined(outputs[0], outputs[0], memory)
        better, worse = (x - output for output in outputs)  # velocities, up to one factor that cancels
        fit = _scaled(worse, inner(better, worse) / inner(worse, worse).clamp(min=1e-12))
        guided = x - (fit + (better - fit) * self.weight(t))
        return Combined(guided, guided, memory)


def classifier_free(
    denoiser: Denoiser,
    scale: float,
    null: Condition,
    *,
    interval: tuple[float, float] = EVERYWHERE,
    rescale: float = 0.0,
    schedule: Callable[[float], float] | None = None,
) -> ClassifierFree:
    """Classifier-free guidance of ``denoiser`` away from the condition ``null``; see `ClassifierFree`."""
    return ClassifierFree(denoiser, scale, null, interval=interval, rescale=rescale, schedule=schedule)


def cfg_plus_plus(denoiser: Denoiser, scale: float, null: Condition) -> CFGPlusPlus:
    """`CFGPlusPlus` with ``scale`` in [0, 1]."""
    return CFGPlusPlus(denoiser, scale, null)


def apg(
    denoiser: Denoiser,
    scale: float,
    null: Condition,
    *,
    parallel: float = 0.0,
    momentum: float = -0.5,
    threshold: float = 0.0,
) -> APG:
    """`APG` guidance."""
    return APG(denoiser, scale, null, parallel=parallel, momentum=momentum, threshold=threshold)


def cfg_zero_star(denoiser: Denoiser, scale: float, null: Condition, *, hold: float = float("inf")) -> CFGZeroStar:
    """`CFGZeroStar` guidance, for flow processes."""
    return CFGZeroStar(denoiser, scale, null, hold=hold)


def autoguidance(
    denoiser: Denoiser, worse: Denoiser, scale: float, *, interval: tuple[float, float] = EVERYWHERE
) -> ClassifierFree:
    """Away from a weaker model of the same data, under the same condition."""
    return ClassifierFree(denoiser, scale, None, worse, interval)


def perturbed(denoiser: Denoiser, variant: Callable[..., Any], scale: float) -> ClassifierFree:
    """Away from the same network with a part switched off: perturbed attention, skipped layers.

    Args:
        denoiser: the whole network's.
        variant: ``network(x, t, **condition)`` of the perturbed one, which the network offers.
        scale: s, on the difference; 0 is none.

    References:
        Ahn et al., Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance (2024), eq. 15;
        Hyung et al., Spatiotemporal Skip Guidance (2024).
    """
    return ClassifierFree(denoiser, 1 + scale, None, replace(denoiser, network=variant))
