r"""Discrete diffusion: fields that are categories, advanced beside the Gaussian ones in the same run.

A category keeps its value with probability a(t) and otherwise takes one from a noise distribution m:

.. math:: q(x_t \mid x_0) = a(t)\, \delta_{x_0} + (1 - a(t))\, m

m is uniform, or all on one absorbing class (a mask). A row goes from t to s < t by the posterior mixed over the
network's belief p about x_0,

.. math:: p(x_s \mid x_t) = \sum_{x_0} p(x_0)\, \frac{q(x_t \mid x_s)\, q(x_s \mid x_0)}{q(x_t \mid x_0)}

References:
    Austin et al., Structured Denoising Diffusion Models in Discrete State-Spaces (2021), eq. 3 and appendix A;
    Sahoo et al., Simple and Effective Masked Diffusion Language Models (2024), eq. 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.errors import InvalidInput

__all__ = ["Categorical", "CategoricalPlan", "absorbing", "uniform"]


@dataclass(frozen=True)
class Categorical:
    """The forward process of a categorical field.

    Attributes:
        classes: number of classes K, an absorbing one included.
        noise: (K,) the distribution m.
    """

    classes: int
    noise: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.classes < 2 or len(self.noise) != self.classes or abs(sum(self.noise) - 1) > 1e-9:
            raise InvalidInput(
                "noise", self.noise, f"{self.classes} probabilities that add up to 1, at least two classes"
            )

    def plan(self, keep: npt.ArrayLike, marks: npt.ArrayLike | None = None) -> CategoricalPlan:
        """A plan over the levels ``keep``.

        Args:
            keep: (R + 1,) a(t) at each marked row and at the end; rising, the last is usually 1.
            marks: (rows,) True at the rows of the whole run that advance this field; by default all R.
        """
        a = np.asarray(keep, np.float64)
        if a.ndim != 1 or len(a) < 2 or (a < 0).any() or (a > 1).any() or (np.diff(a) <= 0).any():
            raise InvalidInput("keep", a.tolist(), "strictly rising numbers from 0 to 1, at least two")
        on = np.ones(len(a) - 1, bool) if marks is None else np.asarray(marks, bool)
        if on.sum() != len(a) - 1:
            raise InvalidInput("marks", int(on.sum()), f"{len(a) - 1} marked rows, one per level left")
        return CategoricalPlan(self, tuple(map(float, a)), tuple(map(bool, on)))

    def posterior(self, x: Tensor, belief: Tensor, keep_t: float, keep_s: float) -> Tensor:
        """p(x_s | x_t): probabilities (..., K).

        Args:
            x: (...) integer classes at t.
            belief: (..., K) probabilities of x_0.
            keep_t: a(t).
            keep_s: a(s), larger.
        """
        noise = torch.tensor(self.noise, dtype=belief.dtype, device=belief.device)
        here = torch.nn.functional.one_hot(x, self.classes).to(belief.dtype)
        ratio = keep_t / keep_s
        # q(x_t | x_s) as a function of x_s, and q(x_t | x_0) as a function of x_0.
        at_noise = noise[x][..., None]
        reach = ratio * here + (1 - ratio) * at_noise
        evidence = keep_t * here + (1 - keep_t) * at_noise
        weight = torch.where(
            evidence > 0, belief / evidence.clamp(min=1e-300 if belief.dtype == torch.float64 else 1e-30), 0
        )
        spread = keep_s * weight + (1 - keep_s) * noise * weight.sum(-1, keepdim=True)
        joint = reach * spread
        return joint / joint.sum(-1, keepdim=True)


@dataclass(frozen=True)
class CategoricalPlan:
    """Which rows of a run advance a categorical field, and between which levels.

    Attributes:
        process: the forward process.
        keep: (R + 1,) a at the marked rows, in order, and at the end.
        marks: (rows,) True where the field advances.
    """

    process: Categorical
    keep: tuple[float, ...]
    marks: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.marks)

    @property
    def digest(self) -> str:
        """SHA-256 of the table."""
        return hashlib.sha256(repr((self.process, self.keep, self.marks)).encode()).hexdigest()

    def start(self, uniform: Tensor) -> Tensor:
        """Classes drawn from the level of the first row with no data: from m. ``uniform`` is (..., K) in (0, 1)."""
        noise = torch.tensor(self.process.noise, dtype=uniform.dtype, device=uniform.device)
        return _draw(noise.expand(uniform.shape), uniform)

    def advance(self, row: int, x: Tensor, belief: Tensor, uniform: Callable[[], Tensor]) -> Tensor:
        """The field after ``row``: ``x`` itself where the row is not marked."""
        if not self.marks[row]:
            return x
        level = sum(self.marks[:row])
        chances = self.process.posterior(x, belief, self.keep[level], self.keep[level + 1])
        return _draw(chances, uniform())


def _draw(chances: Tensor, uniform: Tensor) -> Tensor:
    """A class from each distribution (..., K) by the Gumbel-max rule."""
    gumbel = -torch.log(-torch.log(uniform))
    return (torch.log(chances) + gumbel).argmax(-1)


def uniform(classes: int) -> Categorical:
    """Noise is any class, each as likely (D3PM uniform)."""
    return Categorical(classes, (1.0 / classes,) * classes)


def absorbing(classes: int, mask: int | None = None) -> Categorical:
    """Noise is one class, by default the last: D3PM absorbing, masked diffusion."""
    mask = classes - 1 if mask is None else mask
    if not 0 <= mask < classes:
        raise InvalidInput("mask", mask, f"a class of 0 to {classes - 1}")
    return Categorical(classes, tuple(1.0 if k == mask else 0.0 for k in range(classes)))
