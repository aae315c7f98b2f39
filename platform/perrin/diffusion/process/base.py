"""What a forward process is, and the numbers that all of them need."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Process", "logistic", "preserving"]

Array = npt.NDArray[np.float64]


class Process(ABC):
    """A forward process. Times run from `t_min` (cleanest) to `t_max` (noise)."""

    t_min: float
    t_max: float

    @abstractmethod
    def log_snr(self, t: npt.ArrayLike) -> Array:
        """log(alpha^2 / sigma^2) at ``t``, same shape, strictly decreasing."""

    @abstractmethod
    def time(self, log_snr: npt.ArrayLike) -> Array:
        """The time at which `log_snr` takes the given value: its inverse."""

    @abstractmethod
    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        """(alpha, sigma) at the given log-SNR."""

    def alpha(self, t: npt.ArrayLike) -> Array:
        """Signal scale at ``t``, same shape."""
        return self.scales(self.log_snr(t))[0]

    def sigma(self, t: npt.ArrayLike) -> Array:
        """Noise scale at ``t``, same shape."""
        return self.scales(self.log_snr(t))[1]


def logistic(x: npt.ArrayLike) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    x = np.asarray(x, np.float64)
    out: Array = np.exp(-np.logaddexp(0.0, -x))
    return out


def preserving(log_snr: npt.ArrayLike) -> tuple[Array, Array]:
    """(alpha, sigma) at ``log_snr`` where alpha^2 + sigma^2 = 1."""
    value = np.asarray(log_snr, np.float64)
    return np.sqrt(logistic(value)), np.sqrt(logistic(-value))
