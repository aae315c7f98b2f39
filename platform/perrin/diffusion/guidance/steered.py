r"""Guidance from outside: gradients of a score, measurements, parts that are known, values that must stay in range.

These wrap another guidance (or a denoiser) and change the estimate that it ends with. Those that differentiate through
the network do so inside a denoiser of their own, so the loop stays as it is; such a request runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Output, Point, scaled
from perrin.diffusion.guidance.base import Branch, Combined, Guidance, Memory, Unguided
from perrin.diffusion.state import State
from perrin.errors import InvalidInput

__all__ = [
    "Clipped",
    "Constrained",
    "Steered",
    "Tempered",
    "Thresholded",
    "classifier",
    "clipped",
    "constrained",
    "reconstruction",
    "tempered",
    "thresholded",
]

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the noisy sample, the clean estimate and times (B,) to a number per sample (B,), higher is better."""


@dataclass(frozen=True)
class Steered(Denoiser):
    r"""A denoiser pushed along the gradient of a score.

    .. math:: D' = D + s\,\frac{\sigma^2}{\alpha}\,\nabla_{x_t}\, \mathrm{score}(x_t, D(x_t), t)

    which is Bayes' rule where the score is log p(y | x_t).

    Attributes:
        score: see `Score`.
        strength: s.
        through: differentiate through the network too; else the score may only use the noisy sample.
        whole: scale of the gradient is s alone, without sigma^2 / alpha (reconstruction guidance).
    """

    score: Score | None = None
    strength: float = 1.0
    through: bool = False
    whole: bool = False

    def evaluate(self, x: State, point: Point, condition: Condition) -> Output:
        """The clean estimate with the push."""
        if not isinstance(x, Tensor) or self.score is None:
            raise InvalidInput("x", type(x).__name__, "a plain tensor, and a score to steer by")
        with torch.inference_mode(False), torch.enable_grad():
            noisy = x.clone().requires_grad_()
            if self.through:
                output = super().evaluate(noisy, point, condition)
            else:
                with torch.no_grad():
                    output = super().evaluate(x.clone(), point, condition)
            times = torch.as_tensor(point.t, dtype=x.dtype, device=x.device).expand(len(x))
            better = self.score(noisy, output.clean, times)  # type: ignore[arg-type]
            gradient = torch.autograd.grad(better.sum(), noisy)[0]
        alpha, sigma = self.levels(point)
        factor = self.strength * (alpha / 2 if self.whole else sigma * sigma / alpha)
        clean: Any = output.clean
        return Output(clean.detach() + scaled(gradient, factor), output.variance)


@dataclass(frozen=True)
class Tempered(Denoiser):
    r"""A denoiser at another temperature: what is likely becomes likelier below 1.

    The score is scaled so that data of the given spread, were they Gaussian, would come out with their variance times
    the temperature,

    .. math::
        D' = k D + (1 - k) \frac{x}{\alpha}, \qquad
        k = \frac{\alpha^2 s^2 + \sigma^2}{\alpha^2 \tau s^2 + \sigma^2}

    Attributes:
        temperature: tau, above 0.
        spread: s, the standard deviation of the data.

    References:
        Ingraham et al., Chroma (2023), supplement, low-temperature sampling, for variance-preserving processes.
    """

    temperature: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "spread"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidInput(name, getattr(self, name), "a number above 0")

    def evaluate(self, x: State, point: Point, condition: Condition) -> Output:
        """The clean estimate at the temperature."""
        if not isinstance(x, Tensor):
            raise InvalidInput("x", type(x).__name__, "a plain tensor")
        clean, variance = super().evaluate(x, point, condition)
        alpha, sigma = self.levels(point)
        power = (alpha * self.spread) ** 2
        below = self.temperature * power + sigma**2
        gain, shift = (power + sigma**2) / below, alpha * self.spread**2 * (self.temperature - 1) / below
        return Output(scaled(clean, gain) + scaled(x, shift), variance)  # type: ignore[arg-type]


def _from(denoiser: Denoiser, **options: Any) -> Steered:
    return Steered(
        denoiser.network, denoiser.process, denoiser.prediction, denoiser.variance, denoiser.recall, **options
    )


def classifier(denoiser: Denoiser, log_probability: Callable[[Tensor, Tensor], Tensor], scale: float) -> Unguided:
    """Classifier guidance.

    Args:
        denoiser: of the model.
        log_probability: from noisy samples (B, ...) and times (B,) to log p(y | x_t), (B,).
        scale: s.

    References:
        Dhariwal and Nichol, Diffusion Models Beat GANs (2021), algorithm 1.
    """
    return Unguided(_from(denoiser, score=lambda x, clean, t: log_probability(x, t), strength=scale))


def reconstruction(
    denoiser: Denoiser, measure: Callable[[Tensor], Tensor], target: Tensor, strength: float
) -> Unguided:
    """Reconstruction guidance: the clean estimate should measure as ``target``.

    Args:
        denoiser: of the model.
        measure: what is known of a clean sample, differentiable, (B, ...) to the shape of ``target``.
        target: (B, ...) or (1, ...).
        strength: w_r.

    References:
        Ho et al., Video Diffusion Models (2022), eq. 7; Chung et al., Diffusion Posterior Sampling (2023), eq. 16.
    """

    def score(x: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        return -(measure(clean) - target).square().flatten(1).sum(1)

    return Unguided(_from(denoiser, score=score, strength=strength, through=True, whole=True))


def tempered(denoiser: Denoiser, temperature: float, spread: float = 1.0) -> Tempered:
    """`Tempered`: ``denoiser`` at a temperature, for data of standard deviation ``spread``; guidance goes on top."""
    options = {"temperature": float(temperature), "spread": float(spread)}
    return Tempered(
        denoiser.network, denoiser.process, denoiser.prediction, denoiser.variance, denoiser.recall, **options
    )


@dataclass(frozen=True)
class Constrained(Guidance):
    """Keeps a known part: the estimate there is what is known, so every row re-noises it to its level.

    Attributes:
        guidance: what decides the rest.
        known: (B, ...) or (1, ...) clean values.
        mask: broadcastable to them; 1 where they are known.

    References:
        Lugmayr et al., RePaint (2022), eq. 8; its resampling is the plan ``restart``.
    """

    guidance: Guidance
    known: Tensor
    mask: Tensor

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return self.guidance.branches(condition, t)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        estimate, direction, memory = self.guidance.combine(outputs, x, t, memory)
        kept = torch.lerp(estimate, self.known.to(estimate).expand_as(estimate), self.mask.to(estimate))
        return Combined(kept, kept if direction is estimate else direction, memory)


@dataclass(frozen=True)
class Thresholded(Guidance):
    """Dynamic thresholding: an estimate beyond [-1, 1] is scaled back by a percentile of its size.

    Attributes:
        guidance: what makes the estimate.
        percentile: 0 to 1.

    References:
        Saharia et al., Imagen (2022), section 2.3.
    """

    guidance: Guidance
    percentile: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise InvalidInput("percentile", self.percentile, "a number above 0 and at most 1")

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return self.guidance.branches(condition, t)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        estimate, direction, memory = self.guidance.combine(outputs, x, t, memory)
        limit = torch.quantile(estimate.abs().flatten(1).float(), self.percentile, dim=1).clamp(min=1).to(estimate)
        limit = limit.reshape(-1, *[1] * (estimate.dim() - 1))
        bounded = estimate.clamp(-limit, limit) / limit
        return Combined(bounded, bounded if direction is estimate else direction, memory)


@dataclass(frozen=True)
class Clipped(Guidance):
    """An estimate that is cut off at a bound.

    Attributes:
        guidance: what makes the estimate.
        bound: largest size of an entry.
        along: re-noise along what was cut off, as DDPM has it; else along the estimate as it was, as DDIM does.
    """

    guidance: Guidance
    bound: float = 1.0
    along: bool = False

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return self.guidance.branches(condition, t)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        estimate, direction, memory = self.guidance.combine(outputs, x, t, memory)
        cut = estimate.clamp(-self.bound, self.bound)
        return Combined(cut, cut if self.along else direction, memory)


def clipped(guidance: Guidance | Denoiser, bound: float = 1.0, along: bool = False) -> Clipped:
    """`Clipped` on top of ``guidance``."""
    return Clipped(Unguided(guidance) if isinstance(guidance, Denoiser) else guidance, bound, along)


def constrained(guidance: Guidance | Denoiser, known: Tensor, mask: Tensor) -> Constrained:
    """`Constrained` on top of ``guidance``."""
    return Constrained(Unguided(guidance) if isinstance(guidance, Denoiser) else guidance, known, mask)


def thresholded(guidance: Guidance | Denoiser, percentile: float = 0.995) -> Thresholded:
    """`Thresholded` on top of ``guidance``."""
    return Thresholded(Unguided(guidance) if isinstance(guidance, Denoiser) else guidance, percentile)
