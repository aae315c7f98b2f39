r"""Averaged weights whose memory grows with training.

.. math:: \hat\theta_t = \beta_t\,\hat\theta_{t-1} + (1 - \beta_t)\,\theta_t, \qquad \beta_t = (1 - 1/t)^{\gamma + 1}

gamma follows from the wanted relative width of the average (its standard deviation as a share of training).

References:
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (2024), eq. 1-2, appendix C.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

__all__ = ["EMA", "gamma_of_width"]


def gamma_of_width(width: float) -> float:
    """gamma whose power-law average has relative standard deviation ``width`` (0 < width < 0.28)."""
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots.real.max())


class EMA:
    """Keeps an averaged copy of a network, in float32.

    Args:
        network: what to average.
        width: relative width of the average; 0 keeps the newest weights.
    """

    def __init__(self, network: nn.Module, width: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._gamma = gamma_of_width(width) if width > 0 else None

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (counted from 1)."""
        beta = (1 - 1 / step) ** (self._gamma + 1) if self._gamma is not None else 0.0
        mine, theirs = dict(self.network.named_parameters()), dict(network.named_parameters())
        torch._foreach_lerp_(list(mine.values()), [theirs[name] for name in mine], 1 - beta)
        for buffer, other in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(other)
