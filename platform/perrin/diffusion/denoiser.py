"""A network and what it predicts, together a clean estimate D(x; t).

References:
    Karras et al. (2022), eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.diffusion.prediction import coefficients
from perrin.diffusion.process import Process

__all__ = ["Condition", "Denoiser"]

Condition = Mapping[str, Any]
"""Keyword arguments for the network: tensors of leading dimension B, or 1 to serve the whole batch."""


@dataclass(frozen=True)
class Denoiser:
    """Turns a network into its clean estimate.

    Attributes:
        network: ``network(x, t, **condition)`` with x (B, ...) and t (B,) in the units of the process.
        process: the forward process it was trained under.
        prediction: what it predicts, a key of `perrin.diffusion.prediction.PREDICTIONS`.
    """

    network: Callable[..., Tensor]
    process: Process
    prediction: str = "epsilon"

    def __call__(
        self,
        x: Tensor,
        t: npt.ArrayLike,
        condition: Condition | None = None,
        *,
        alpha: npt.ArrayLike | None = None,
        sigma: npt.ArrayLike | None = None,
    ) -> Tensor:
        """The clean estimate.

        Args:
            x: (B, ...) noisy samples, alpha x_0 + sigma noise.
            t: one time, or (B,) times.
            condition: the network's condition.
            alpha: signal scale at ``t`` where it is known more exactly than the process tells.
            sigma: likewise, noise scale.

        Returns:
            (B, ...) estimates of x_0, in the dtype of ``x``.
        """
        times = np.broadcast_to(np.asarray(t, np.float64), (len(x),))
        a = self.process.alpha(times) if alpha is None else np.broadcast_to(np.asarray(alpha, np.float64), times.shape)
        s = self.process.sigma(times) if sigma is None else np.broadcast_to(np.asarray(sigma, np.float64), times.shape)
        c = coefficients(self.prediction, times, a, s)
        shape = (-1,) + (1,) * (x.dim() - 1)

        def column(values: npt.NDArray[np.float64]) -> Tensor:
            return torch.as_tensor(values.copy()).to(device=x.device, dtype=x.dtype).reshape(shape)

        scaled = x if (c.c_in == 1).all() else x * column(c.c_in)
        out = self.network(scaled, column(c.c_noise).reshape(-1), **(condition or {}))
        estimate = column(c.c_out) * out.to(x.dtype)
        return estimate if (c.c_skip == 0).all() else column(c.c_skip) * x + estimate
