"""A network and what it predicts, together a clean estimate D(x; t).

References:
    Karras et al. (2022), eq. 7; Nichol and Dhariwal, Improved DDPM (2021), eq. 15, for the learned variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.diffusion.prediction import coefficients
from perrin.diffusion.process import Process
from perrin.diffusion.state import State, items_of, like
from perrin.errors import InvalidInput

__all__ = ["Condition", "Denoiser", "Output", "Point", "scaled"]

Condition = Mapping[str, Any]
"""Keyword arguments for the network: tensors of leading dimension B, or 1 to serve the whole batch."""

Levels = npt.ArrayLike | Mapping[str, npt.ArrayLike]


class Point(NamedTuple):
    """Where a network is evaluated.

    Attributes:
        t: one time, or (B,) times, in the units it was trained in.
        alpha: signal scale of each field's input ('' for a plain tensor), a number, (B,), or a tuple by channel.
        sigma: noise scale, likewise.
    """

    t: Any
    alpha: Mapping[str, Any]
    sigma: Mapping[str, Any]


class Output(NamedTuple):
    """What a network said.

    Attributes:
        clean: estimate of x_0; for a categorical field the belief about it, (B, ..., K) probabilities.
        variance: in [-1, 1] by element, where the network learns its variance: between the least and the most.
    """

    clean: State
    variance: State | None = None


@dataclass(frozen=True)
class Denoiser:
    """Turns a network into its clean estimate.

    Attributes:
        network: ``network(x, t, **condition)`` with x (B, ...) or `Fields` and t (B,) in the units of the process;
            returns what ``x`` is, with twice the channels where it learns its variance, and logits for a categorical
            field.
        process: the forward process it was trained under, or one per field.
        prediction: what it predicts, a key of `perrin.diffusion.prediction.PREDICTIONS`, or one per field; a field
            whose prediction is ``logits`` is categorical.
        variance: the second half of the network's channels (axis 1) is its learned variance.
        recall: from a run's second row on, the network is told the run's last clean estimate (self-conditioning), field
            by field as the conditions ``estimate.FIELD``; of a plain tensor as ``estimate``.

    References:
        Chen et al., Analog Bits (2022), section 3.2, for recall.
    """

    network: Callable[..., Any]
    process: Process | Mapping[str, Process]
    prediction: str | Mapping[str, str] = "epsilon"
    variance: bool = False
    recall: bool = False

    def __call__(
        self,
        x: Any,
        t: npt.ArrayLike,
        condition: Condition | None = None,
        *,
        alpha: Levels | None = None,
        sigma: Levels | None = None,
    ) -> Any:
        """The clean estimate.

        Args:
            x: (B, ...) noisy samples, alpha x_0 + sigma noise; or `Fields`.
            t: one time, or (B,) times.
            condition: the network's condition.
            alpha: signal scale at ``t`` where it is known more exactly than the process tells; by field for `Fields`.
            sigma: likewise, noise scale.

        Returns:
            (B, ...) estimates of x_0, in the dtype of ``x``.
        """

        def named(levels: Levels | None) -> dict[str, Any]:
            return {} if levels is None else dict(levels) if isinstance(levels, Mapping) else {"": levels}

        return self.evaluate(x, Point(t, named(alpha), named(sigma)), condition or {}).clean

    def process_of(self, field: str) -> Process:
        """The forward process of a field."""
        return self.process[field] if isinstance(self.process, Mapping) else self.process

    def prediction_of(self, field: str) -> str:
        """What is predicted of a field."""
        return self.prediction if isinstance(self.prediction, str) else self.prediction[field]

    def levels(self, point: Point, field: str = "") -> tuple[Any, Any]:
        """Signal and noise scale of a field: numbers, (B,), or by channel (1 or B, C) arrays."""
        alpha, sigma = point.alpha.get(field), point.sigma.get(field)
        if isinstance(alpha, float) and isinstance(sigma, float):
            return alpha, sigma
        process = self.process_of(field)
        return _level(alpha, process.alpha, point.t), _level(sigma, process.sigma, point.t)

    def evaluate(self, x: State, point: Point, condition: Condition) -> Output:
        """The clean estimate and, where it is learned, the variance.

        A point of plain numbers (every `Run`'s) costs no arrays; one of (B,) times serves many runs in one batch, to
        the same bits.
        """
        tensors = items_of(x)
        inputs, keep = dict(tensors), {}
        told: Any = point.t if isinstance(point.t, float) else np.asarray(point.t, np.float64)
        for name, tensor in tensors.items():
            kind = self.prediction_of(name)
            if kind == "logits":
                continue
            alpha, sigma = self.levels(point, name)
            c = coefficients(kind, point.t if isinstance(alpha, float) else _along(point.t, alpha), alpha, sigma)
            inputs[name] = scaled(tensor, c.c_in)
            keep[name] = (c.c_skip, c.c_out)
            told = c.c_noise
        reference = x if isinstance(x, Tensor) else next(t for t in tensors.values() if t.is_floating_point())
        raw = self.network(like(x, inputs), _tell(told, reference), **condition)
        answers = {"": raw} if isinstance(raw, Tensor) else dict(raw)
        if answers.keys() != tensors.keys():
            raise InvalidInput("network", list(answers), f"an output for each of {list(tensors)}")
        clean: dict[str, Tensor] = {}
        variance: dict[str, Tensor] = {}
        for name, answer in answers.items():
            tensor = tensors[name]
            if name not in keep:
                clean[name] = torch.softmax(answer.double(), -1)
                continue
            if self.variance:
                answer, learned = answer.chunk(2, dim=1)
                variance[name] = learned.to(tensor.dtype)
            skip, out = keep[name]
            estimate = scaled(answer.to(tensor.dtype), out)
            bare = skip == 0 if isinstance(skip, float) else np.all(skip == 0)
            clean[name] = estimate if bare else scaled(tensor, skip) + estimate
        return Output(like(x, clean), like(x, variance) if variance else None)


def _level(given: Any, process: Callable[[Any], npt.NDArray[np.float64]], t: Any) -> Any:
    """A number, (B,) or, by channel, (1 or B, C) levels."""
    if isinstance(given, float):
        return given
    level = process(t) if given is None else np.asarray(given, np.float64)
    if isinstance(given, tuple):
        return level[None]
    return level if level.ndim else float(level)


def _along(t: Any, level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Times of the shape of ``level``: a process by channel, (B, C), tells its channels one time."""
    times = np.asarray(t, np.float64)
    return np.broadcast_to(times[..., None] if level.ndim == 2 else times, level.shape)


def scaled(x: Tensor, c: Any) -> Tensor:
    """``x`` (B, C, ...) times a number, (B,) numbers, or (1 or B, C) numbers."""
    if isinstance(c, float):
        return x if c == 1 else x * c
    return x if np.all(c == 1) else x * _tensor(c, x).reshape(*c.shape, *[1] * (x.dim() - c.ndim))


def _tell(told: Any, x: Tensor) -> Tensor:
    """The network's times, (B,)."""
    if isinstance(told, float):
        return x.new_full((len(x),), told)
    told = np.asarray(told)[..., 0] if np.ndim(told) == 2 else np.asarray(told)
    return _tensor(np.broadcast_to(told, (len(x),)), x)


def _tensor(values: npt.NDArray[np.float64], x: Tensor) -> Tensor:
    """``values`` of the dtype and on the device of ``x``, without waiting for it."""
    return torch.from_numpy(np.array(values)).to(x.dtype).to(x.device, non_blocking=True)
