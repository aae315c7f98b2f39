r"""Loss weights: how much an error at a noise level counts.

Every weight w is one on the error of the clean estimate, written in the signal-to-noise ratio r = alpha^2 / sigma^2.
Since D - x_0 = c_out (F - F*), the same loss on a network's own output has the weight w c_out^2.

.. math:: L = \mathbb E\; w(r)\, \|D(x_t; t) - x_0\|^2 = \mathbb E\; w(r)\, c_{out}^2\, \|F - F^*\|^2

References:
    Salimans and Ho, Progressive Distillation (2022), section 4; Hang et al., Min-SNR Weighting (2023), section 3.4;
    Choi et al., Perception Prioritized Training (2022), eq. 8; Karras et al. (2022), table 1;
    Hoogeboom et al., Simpler Diffusion (2024), eq. 6; Kingma and Gao, Understanding Diffusion Objectives (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process import Array
from perrin.errors import InvalidInput, UnknownName

__all__ = ["WEIGHTS", "edm", "min_snr", "p2", "sigmoid", "snr", "truncated_snr", "uniform", "weight"]


def _ratio(log_snr: npt.ArrayLike) -> Array:
    out: Array = np.exp(np.asarray(log_snr, np.float64))
    return out


def uniform(log_snr: npt.ArrayLike) -> Array:
    """1: the plain error of the clean estimate."""
    return np.ones_like(np.asarray(log_snr, np.float64))


def snr(log_snr: npt.ArrayLike) -> Array:
    """r: the plain error of the noise, DDPM's simple loss."""
    return _ratio(log_snr)


def truncated_snr(log_snr: npt.ArrayLike) -> Array:
    """max(r, 1)."""
    return np.maximum(_ratio(log_snr), 1.0)


def min_snr(log_snr: npt.ArrayLike, gamma: float = 5.0) -> Array:
    """min(r, gamma)."""
    if not gamma > 0:
        raise InvalidInput("gamma", gamma, "a number above 0")
    return np.minimum(_ratio(log_snr), gamma)


def p2(log_snr: npt.ArrayLike, gamma: float = 1.0, k: float = 1.0) -> Array:
    """r / (k + r)^gamma."""
    r = _ratio(log_snr)
    out: Array = r / (k + r) ** gamma
    return out


def edm(log_snr: npt.ArrayLike, sigma_data: float = 0.5, most: float = math.inf) -> Array:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 with sigma^2 = 1 / r, which is r + 1 / sigma_data^2.

    ``most`` bounds it, for a network that has no preconditioning: what it gets wrong of a nearly clean input would
    otherwise outweigh all else.
    """
    return np.minimum(_ratio(log_snr) + sigma_data**-2, most)


def sigmoid(log_snr: npt.ArrayLike, bias: float = -1.0) -> Array:
    """r sigmoid(bias - log r)."""
    value = np.asarray(log_snr, np.float64)
    out: Array = np.exp(value - np.logaddexp(0.0, value - bias))
    return out


WEIGHTS: dict[str, Callable[..., Array]] = {
    f.__name__: f for f in (uniform, snr, truncated_snr, min_snr, p2, edm, sigmoid)
}
"""By the name that a recipe uses."""


def weight(name: str, log_snr: npt.ArrayLike, **options: float) -> Array:
    """The weight called ``name``.

    Raises:
        UnknownName: with the weights there are.
    """
    if name not in WEIGHTS:
        raise UnknownName("weight", name, "one of " + ", ".join(WEIGHTS))
    return WEIGHTS[name](log_snr, **options)
