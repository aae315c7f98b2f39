r"""Forward processes: how a clean x_0 turns into noise.

.. math:: x_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon, \qquad \varepsilon \sim \mathcal N(0, I)

Everything else derives from alpha and sigma. `Process.log_snr` is log(alpha^2 / sigma^2), strictly decreasing in t, and
`Process.time` is its inverse. All of it is float64 NumPy.

References:
    Kingma et al., Variational Diffusion Models (2021), eq. 1-3.
    Song et al., Score-Based Generative Modeling through SDEs (2021).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput, UnknownName

__all__ = [
    "EDM",
    "Array",
    "Flow",
    "FromBetas",
    "Process",
    "cosine",
    "edm",
    "flow",
    "from_betas",
    "from_config",
    "linear",
    "scaled_linear",
]

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
    def alpha(self, t: npt.ArrayLike) -> Array:
        """Signal scale at ``t``, same shape."""

    @abstractmethod
    def sigma(self, t: npt.ArrayLike) -> Array:
        """Noise scale at ``t``, same shape."""

    @abstractmethod
    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        """(alpha, sigma) at the given log-SNR."""


def _sigmoid(x: npt.ArrayLike) -> Array:
    x = np.asarray(x, np.float64)
    out: Array = np.exp(-np.logaddexp(0.0, -x))
    return out


@dataclass(frozen=True)
class FromBetas(Process):
    """Variance preserving, given by betas; t counts the training steps 0 .. T-1, fractions allowed.

    Between two steps log-SNR is linear in t, so that `time` inverts it exactly.

    Args:
        betas: T numbers in (0, 1).
    """

    betas: tuple[float, ...]
    _log_snr: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, np.float64)
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise InvalidInput("betas", f"{betas.shape} values", "at least two numbers, each above 0 and below 1")
        log_alpha_bar = np.cumsum(np.log1p(-betas))
        object.__setattr__(self, "_log_snr", log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))
        object.__setattr__(self, "t_min", 0.0)
        object.__setattr__(self, "t_max", float(len(betas) - 1))

    def log_snr(self, t: npt.ArrayLike) -> Array:
        return np.interp(np.asarray(t, np.float64), np.arange(len(self._log_snr)), self._log_snr)

    def time(self, log_snr: npt.ArrayLike) -> Array:
        ascending = self._log_snr[::-1]
        return np.interp(np.asarray(log_snr, np.float64), ascending, np.arange(len(ascending))[::-1])

    def alpha(self, t: npt.ArrayLike) -> Array:
        return np.sqrt(_sigmoid(self.log_snr(t)))

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.sqrt(_sigmoid(-self.log_snr(t)))

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        return np.sqrt(_sigmoid(log_snr)), np.sqrt(_sigmoid(-np.asarray(log_snr, np.float64)))


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

    def alpha(self, t: npt.ArrayLike) -> Array:
        return np.ones_like(np.asarray(t, np.float64))

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.asarray(t, np.float64).copy()

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        sigma = self.time(log_snr)
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
        return _sigmoid(-np.asarray(log_snr, np.float64) / 2)

    def alpha(self, t: npt.ArrayLike) -> Array:
        return 1 - np.asarray(t, np.float64)

    def sigma(self, t: npt.ArrayLike) -> Array:
        return np.asarray(t, np.float64).copy()

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        half = np.asarray(log_snr, np.float64) / 2
        return _sigmoid(half), _sigmoid(-half)


def from_betas(betas: Sequence[float]) -> FromBetas:
    """The variance preserving process of these betas."""
    return FromBetas(tuple(float(b) for b in betas))


def linear(beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000) -> FromBetas:
    """Betas linear in t (Ho et al., Denoising Diffusion Probabilistic Models, 2020, section 4)."""
    return from_betas(np.linspace(beta_min, beta_max, steps).tolist())


def scaled_linear(beta_min: float = 0.00085, beta_max: float = 0.012, steps: int = 1000) -> FromBetas:
    """Betas whose square root is linear in t (Rombach et al., Latent Diffusion, 2022)."""
    return from_betas((np.linspace(beta_min**0.5, beta_max**0.5, steps) ** 2).tolist())


def cosine(steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> FromBetas:
    """alpha-bar a squared cosine (Nichol and Dhariwal, Improved DDPM, 2021, eq. 17)."""
    u = np.arange(steps + 1) / steps
    bar = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1 - bar[1:] / bar[:-1], beta_max).tolist())


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """The process of `EDM`."""
    return EDM(sigma_min, sigma_max)


def flow() -> Flow:
    """The process of `Flow`."""
    return Flow()


_KINDS = {f.__name__: f for f in (linear, scaled_linear, cosine, edm, flow, from_betas)}


def from_config(config: Mapping[str, Any]) -> Process:
    """The process that a model card describes: ``{"kind": "linear", "beta_min": ...}``.

    Raises:
        UnknownName: no such kind.
    """
    options = dict(config)
    kind = options.pop("kind", None)
    if kind not in _KINDS:
        raise UnknownName("process", kind, "one of " + ", ".join(_KINDS))
    made: Process = _KINDS[kind](**options)
    return made
