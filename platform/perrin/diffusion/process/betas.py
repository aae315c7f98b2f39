r"""Processes given by betas: the discrete-time, variance-preserving ones.

.. math:: \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad
    \alpha(t) = \sqrt{\bar\alpha_t},\; \sigma(t) = \sqrt{1 - \bar\alpha_t}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process.base import Array, Process, logistic, preserving
from perrin.errors import InvalidInput

__all__ = [
    "FromBetas",
    "cosine",
    "from_betas",
    "laplace",
    "linear",
    "quadratic",
    "scaled_linear",
    "shifted_snr",
    "sigmoid",
    "zero_terminal_snr",
]


@dataclass(frozen=True)
class FromBetas(Process):
    """Variance preserving, given by betas; t counts the training steps 0 .. T-1, fractions allowed.

    Between two steps log-SNR is linear in t, so that `time` inverts it exactly. Where the last beta is 1 (zero terminal
    SNR), it falls to minus infinity over the last step like 2 log(T - 1 - t).

    Args:
        betas: T numbers above 0 and below 1; the last may be 1.
    """

    betas: tuple[float, ...]
    _log_snr: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, np.float64)
        inner = betas[:-1] if betas.ndim == 1 and len(betas) > 1 else np.zeros(1)
        if not ((inner > 0) & (inner < 1)).all() or not 0 < betas[-1] <= 1:
            raise InvalidInput("betas", f"{betas.shape} values", "at least two numbers, each above 0 and below 1")
        with np.errstate(divide="ignore"):
            log_alpha_bar = np.cumsum(np.log1p(-betas))
            object.__setattr__(self, "_log_snr", log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))
        object.__setattr__(self, "t_min", 0.0)
        object.__setattr__(self, "t_max", float(len(betas) - 1))

    @property
    def _knots(self) -> Array:
        """The finite log-SNRs."""
        return self._log_snr if np.isfinite(self._log_snr[-1]) else self._log_snr[:-1]

    def log_snr(self, t: npt.ArrayLike) -> Array:
        t, knots = np.asarray(t, np.float64), self._knots
        value: Array = np.interp(t, np.arange(len(knots)), knots)
        if len(knots) == len(self._log_snr):
            return value
        with np.errstate(divide="ignore"):
            beyond = 2 * np.log(np.clip(self.t_max - t, 0, 1))
        return np.where(t > self.t_max - 1, knots[-1] + beyond, value)

    def time(self, log_snr: npt.ArrayLike) -> Array:
        value, knots = np.asarray(log_snr, np.float64), self._knots
        t: Array = np.interp(value, knots[::-1], np.arange(len(knots))[::-1])
        if len(knots) == len(self._log_snr):
            return t
        return np.where(value < knots[-1], self.t_max - np.exp((value - knots[-1]) / 2), t)

    def scales(self, log_snr: npt.ArrayLike) -> tuple[Array, Array]:
        return preserving(log_snr)


def from_betas(betas: Sequence[float]) -> FromBetas:
    """The variance preserving process of these betas."""
    return FromBetas(tuple(float(b) for b in betas))


def linear(beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000) -> FromBetas:
    """Betas linear in t (Ho et al., Denoising Diffusion Probabilistic Models, 2020, section 4)."""
    return from_betas(np.linspace(beta_min, beta_max, steps).tolist())


def quadratic(beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000) -> FromBetas:
    """Betas whose square root is linear in t (Song et al., DDIM, 2021, appendix D)."""
    return from_betas((np.linspace(beta_min**0.5, beta_max**0.5, steps) ** 2).tolist())


def scaled_linear(beta_min: float = 0.00085, beta_max: float = 0.012, steps: int = 1000) -> FromBetas:
    """`quadratic` with the betas of Stable Diffusion (Rombach et al., Latent Diffusion, 2022)."""
    return quadratic(beta_min, beta_max, steps)


def sigmoid(beta_min: float = 1e-4, beta_max: float = 0.02, steps: int = 1000, width: float = 6.0) -> FromBetas:
    """Betas a sigmoid of t over (-width, width) (Xu et al., GeoDiff, 2022)."""
    rise = logistic(np.linspace(-width, width, steps))
    return from_betas((beta_min + (beta_max - beta_min) * rise).tolist())


def _from_alpha_bar(bar: Array, beta_max: float) -> FromBetas:
    return from_betas(np.minimum(1 - bar[1:] / bar[:-1], beta_max).tolist())


def cosine(steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> FromBetas:
    """alpha-bar a squared cosine (Nichol and Dhariwal, Improved DDPM, 2021, eq. 17)."""
    u = np.arange(steps + 1) / steps
    return _from_alpha_bar(np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2, beta_max)


def laplace(steps: int = 1000, mean: float = 0.0, scale: float = 0.5, beta_max: float = 0.999) -> FromBetas:
    """log-SNR with a Laplace density over training times (Hang and Gu, Improved Noise Schedule, 2024, table 1)."""
    u = (np.arange(steps) + 0.5) / steps
    log_snr = mean - scale * np.sign(u - 0.5) * -np.log1p(-2 * np.abs(u - 0.5))
    return _from_alpha_bar(np.append(1.0, logistic(log_snr)), beta_max)


def zero_terminal_snr(process: FromBetas) -> FromBetas:
    """``process`` stretched so that its last step is pure noise (Lin et al., 2023, algorithm 1)."""
    root = np.sqrt(np.cumprod(1 - np.asarray(process.betas, np.float64)))
    stretched = (root - root[-1]) * root[0] / (root[0] - root[-1])
    bar = stretched**2
    betas = 1 - np.append(bar[0], bar[1:] / bar[:-1])
    return from_betas(betas.tolist())


def shifted_snr(process: FromBetas, scale: float) -> FromBetas:
    """``process`` with its signal-to-noise ratio divided by ``scale`` everywhere (Hoogeboom et al., Simple Diffusion,
    2023, section 3.1)."""
    if not scale > 0:
        raise InvalidInput("snr_shift", scale, "a number above 0")
    bar = np.cumprod(1 - np.asarray(process.betas, np.float64))
    shifted = bar / (scale + (1 - scale) * bar)
    return from_betas((1 - np.append(shifted[0], shifted[1:] / shifted[:-1])).tolist())
