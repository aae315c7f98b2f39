r"""Parts of a condition that count more or less.

With the estimate D_c under the whole condition and D_i under the condition without its part i, the part is given a
weight w_i by going on along what it makes of the estimate,

.. math:: D' = D + s \sum_i (w_i - 1)\,(D_c - D_i)

where s is the scale of the guidance that D comes from. With D guided by s, a weight of 0 is the guided estimate without
the part, and 1 leaves D as it is.

References:
    Liu et al., Compositional Visual Generation with Composable Diffusion Models (2022), eq. 11; Brack et al., SEGA:
    Instructing Text-to-Image Models using Semantic Guidance (2023), eq. 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perrin.diffusion.denoiser import Condition
from perrin.diffusion.guidance.base import Branch, Combined, Memory
from perrin.diffusion.guidance.classifier_free import ClassifierFree
from perrin.errors import InvalidInput

__all__ = ["Weighted", "weighted"]


@dataclass(frozen=True)
class Weighted:
    """Classifier-free guidance under a condition some of whose parts have a weight.

    Attributes:
        guidance: makes D; its first branch is D_c.
        without: the conditions without each of the parts.
        weights: w_i of each.
    """

    guidance: ClassifierFree
    without: tuple[Condition, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.without) != len(self.weights):
            raise InvalidInput("weights", len(self.weights), f"one for each of {len(self.without)} conditions")

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        """Those of the guidance, and one for each part."""
        parts = (Branch(self.guidance.denoiser, condition) for condition in self.without)
        return (*self.guidance.branches(condition, t), *parts)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        """The estimate, with the parts' differences added."""
        count = len(self.without)
        estimate, direction, memory = self.guidance.combine(outputs[:-count], x, t, memory)
        change = sum(
            (outputs[0] - output) * ((weight - 1) * self.guidance.weight(t))
            for weight, output in zip(self.weights, outputs[-count:], strict=True)
        )
        moved = estimate + change
        return Combined(moved, moved if direction is estimate else direction + change, memory)


def weighted(guidance: ClassifierFree, without: Sequence[Condition], weights: Sequence[float]) -> Weighted:
    """`Weighted` on top of ``guidance``; see there."""
    return Weighted(guidance, tuple(without), tuple(weights))
