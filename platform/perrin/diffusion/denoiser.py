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
from perrin.diffusion.state import Fields, State, items_of, like
from perrin.errors import InvalidInput

__all__ = ["Condition", "Denoiser", "Output", "Point"]

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
    """

    network: Callable[..., Any]
    process: Process | Mapping[str, Process]
    prediction: str | Mapping[str, str] = "epsilon"
    variance: bool = False

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

    def evaluate(self, x: State, point: Point, condition: Condition) -> Output:
        """The clean estimate and, where it is learned, the variance."""
        tensors = items_of(x)
        batch = len(next(iter(tensors.values())))
        times = np.broadcast_to(np.asarray(point.t, np.float64), (batch,))
        inputs, keep, told = {}, {}, times
        for name, tensor in tensors.items():
            if self.prediction_of(name) == "logits":
                inputs[name] = tensor
                continue
            process = self.process_of(name)
            alpha = _level(point.alpha.get(name), process.alpha, times)
            sigma = _level(point.sigma.get(name), process.sigma, times)
            # A process per channel has levels (B, C); its channels are told one time.
            at = np.broadcast_to(times[:, None], alpha.shape) if alpha.ndim == 2 else times
            c = coefficients(self.prediction_of(name), at, alpha, sigma)
            inputs[name] = tensor if (c.c_in == 1).all() else tensor * _column(c.c_in, tensor)
            keep[name] = (c.c_skip, c.c_out)
            told = c.c_noise[:, 0] if alpha.ndim == 2 else c.c_noise
        reference = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
        raw = self.network(like(x, inputs), _column(told, reference).reshape(-1), **condition)
        answers = dict(raw) if isinstance(raw, Mapping) else {"": raw}
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
            estimate = _column(out, tensor) * answer.to(tensor.dtype)
            clean[name] = estimate if (skip == 0).all() else _column(skip, tensor) * tensor + estimate
        mask = x.mask if isinstance(x, Fields) else None
        second = None if not variance else Fields(variance, mask) if isinstance(x, Fields) else variance[""]
        return Output(like(x, clean), second)


def _level(
    given: Any, process: Callable[[npt.ArrayLike], npt.NDArray[np.float64]], times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(B,) or, by channel, (B, C) levels; given as a number, as (B,) or (B, C) numbers, or as a tuple of C."""
    if given is None:
        return process(times)
    level = np.asarray(given, np.float64)
    shape = (len(times), level.shape[-1]) if isinstance(given, tuple) or level.ndim == 2 else times.shape
    return np.broadcast_to(level, shape)


def _column(values: npt.NDArray[np.float64], x: Tensor) -> Tensor:
    """(B,) or (B, C) numbers as a tensor that multiplies ``x`` (B, C, ...)."""
    column = torch.from_numpy(np.array(values)).to(x.dtype)
    return column.to(x.device, non_blocking=True).reshape(*values.shape, *[1] * (x.dim() - values.ndim))
