"""Processes in continuous time, each with alpha, sigma and their inverse in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process.base import Array, Process, logistic, preserving
from perrin.errors import InvalidInput

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Angular",
    "Flow",
    "PerChannel",
    "SubVP",
    "angular",
    "edm",
    "flow",
    "per_channel",
    "sub_vp",
    "ve",
    "vp",
]


@dataclass(frozen=True)
class VP(Process):
    r"""Variance preserving in continuous time, beta linear in t in (0, 1).

    .. math:: \log\alpha(t) = -\tfrac14 t^2 (\beta_1 - \beta_0) - \tfrac12 t \beta_0

    References:
        Song et al. (2021), eq. 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise InvalidInput("beta_min", self.beta_min, f"above 0 and below beta_max, {self.beta_max}")

    def _log_alpha(self, t: npt.ArrayLike) -> Array:
        t = np.asarray(t, np.float64)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def _at_log_alpha(self, log_alpha: Array) -> Array:
        slope = self.beta_max - self.beta_min
        # The root of slope t^2 / 4 + beta_min t / 2 + log alpha = 0, without cancellation.
        return -4 * log_alpha / (self.beta_min + np.sqrt(self.beta_min**2 - 4 * slope * log_alpha))

    def log_snr(self, t: npt.ArrayLike) -> Array:
        double = 2 * self._log_alpha(t)
        return double - np.log(-np.expm1(double))

    def time(self, log_snr: npt.ArrayLike) -> Array:
        return self._at_log_alpha(-0.5 * np.logaddexp(0.0, -np.asarray(log_snr, np.float64)))

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        return preserving(log_snr)


@dataclass(frozen=True)
class SubVP(VP):
    r"""The sub-variance-preserving process: alpha of `VP`, sigma = 1 - alpha^2 (Song et al., 2021, eq. 29)."""

    def log_snr(self, t: npt.ArrayLike) -> Array:
        log_alpha = self._log_alpha(t)
        out: Array = 2 * (log_alpha - np.log(-np.expm1(2 * log_alpha)))
        return out

    def time(self, log_snr: npt.ArrayLike) -> Array:
        return self._at_log_alpha(np.log(self.scales(log_snr)[0]))

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        # alpha / (1 - alpha^2) = r has the root alpha = 2 r / (1 + sqrt(1 + 4 r^2)).
        r = np.exp(np.asarray(log_snr, np.float64) / 2)
        alpha = 2 * r / (1 + np.hypot(1.0, 2 * r))
        return alpha, alpha / r


@dataclass(frozen=True)
class EDM(Process):
    """Variance exploding with sigma as time: alpha = 1, sigma(t) = t.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (2022), table 1.
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.t_min < self.t_max < np.inf:
            raise InvalidInput("sigma_min", self.t_min, f"above 0 and below sigma_max, {self.t_max}")

    def log_snr(self, t: npt.ArrayLike) -> Array:
        return -2 * np.log(np.asarray(t, np.float64))

    def time(self, log_snr: npt.ArrayLike) -> Array:
        return np.exp(-np.asarray(log_snr, np.float64) / 2)

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        sigma = np.exp(-np.asarray(log_snr, np.float64) / 2)
        return np.ones_like(sigma), sigma

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.asarray(t, np.float64).copy()


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding, sigma geometric in t in [0, 1] (Song et al., 2021, eq. 30)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < np.inf:
            raise InvalidInput("sigma_min", self.sigma_min, f"above 0 and below sigma_max, {self.sigma_max}")

    def log_snr(self, t: npt.ArrayLike) -> Array:
        span = np.log(self.sigma_max / self.sigma_min)
        out: Array = -2 * (np.log(self.sigma_min) + np.asarray(t, np.float64) * span)
        return out

    def time(self, log_snr: npt.ArrayLike) -> Array:
        span = np.log(self.sigma_max / self.sigma_min)
        out: Array = (-np.asarray(log_snr, np.float64) / 2 - np.log(self.sigma_min)) / span
        return out

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        sigma = np.exp(-np.asarray(log_snr, np.float64) / 2)
        return np.ones_like(sigma), sigma


@dataclass(frozen=True)
class Flow(Process):
    """Rectified flow: alpha = 1 - t, sigma = t, for t in (0, 1).

    References:
        Liu et al., Flow Straight and Fast (2022); Lipman et al., Flow Matching for Generative Modeling (2023), eq. 22.
    """

    t_min: float = 1e-4
    t_max: float = 1.0

    def log_snr(self, t: npt.ArrayLike) -> Array:
        t = np.asarray(t, np.float64)
        with np.errstate(divide="ignore"):
            out: Array = 2 * (np.log1p(-t) - np.log(t))
        return out

    def time(self, log_snr: npt.ArrayLike) -> Array:
        return logistic(-np.asarray(log_snr, np.float64) / 2)

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        half = np.asarray(log_snr, np.float64) / 2
        return logistic(half), logistic(-half)

    def alpha(self, t: npt.ArrayLike) -> Array:
        return 1 - np.asarray(t, np.float64)

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.asarray(t, np.float64).copy()


@dataclass(frozen=True)
class Angular(Process):
    r"""Variance preserving along a quarter of a circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2), t in (0, 1).

    References:
        Salimans and Ho, Progressive Distillation (2022), section 4, where t is the angle.
    """

    t_min: float = 1e-4
    t_max: float = 1 - 1e-4

    def log_snr(self, t: npt.ArrayLike) -> Array:
        angle = np.asarray(t, np.float64) * np.pi / 2
        out: Array = -2 * np.log(np.tan(angle))
        return out

    def time(self, log_snr: npt.ArrayLike) -> Array:
        out: Array = np.arctan(np.exp(-np.asarray(log_snr, np.float64) / 2)) * 2 / np.pi
        return out

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        return preserving(log_snr)


@dataclass(frozen=True)
class PerChannel(Process):
    """One process per channel, all told the same time; every result has one more axis, the last, for the channels."""

    processes: tuple[Process, ...]

    def __post_init__(self) -> None:
        if not self.processes:
            raise InvalidInput("processes", 0, "at least one")
        object.__setattr__(self, "t_min", max(p.t_min for p in self.processes))
        object.__setattr__(self, "t_max", min(p.t_max for p in self.processes))

    def log_snr(self, t: npt.ArrayLike) -> Array:
        return np.stack([p.log_snr(t) for p in self.processes], axis=-1)

    def time(self, log_snr: npt.ArrayLike) -> Array:
        """The time at which the first channel has the given log-SNR."""
        return self.processes[0].time(log_snr)

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        """By the first channel's log-SNR."""
        t = self.time(log_snr)
        return self.alpha(t), self.sigma(t)

    def alpha(self, t: npt.ArrayLike) -> Array:
        return np.stack([p.alpha(t) for p in self.processes], axis=-1)

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.stack([p.sigma(t) for p in self.processes], axis=-1)


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> VP:
    """The process of `VP`."""
    return VP(beta_min, beta_max)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SubVP:
    """The process of `SubVP`."""
    return SubVP(beta_min, beta_max)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> VE:
    """The process of `VE`."""
    return VE(sigma_min, sigma_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """The process of `EDM`."""
    return EDM(sigma_min, sigma_max)


def angular(sigma_min: float = 0.01, sigma_max: float = 100.0) -> Angular:
    """The process of `Angular` between two noise-to-signal ratios."""
    if not 0 < sigma_min < sigma_max < np.inf:
        raise InvalidInput("sigma_min", sigma_min, f"above 0 and below sigma_max, {sigma_max}")
    low, high = (float(np.arctan(ratio) * 2 / np.pi) for ratio in (sigma_min, sigma_max))
    return Angular(low, high)


def flow() -> Flow:
    """The process of `Flow`; shifts of its times are grids, see `perrin.diffusion.grid.shifted`."""
    return Flow()


def per_channel(processes: Sequence[Process]) -> PerChannel:
    """The process of `PerChannel`."""
    return PerChannel(tuple(processes))
