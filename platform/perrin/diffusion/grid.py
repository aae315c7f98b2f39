"""Time grids: where along the process a solver evaluates the network.

A `Grid` of N steps holds N times t_0 > t_1 > ... > t_{N-1}, and N + 1 points (alpha, sigma): those of the times and the
end, which is clean (1, 0). Spacings are chosen in time, in log-SNR, or in the noise-to-signal ratio sigma / alpha.

References:
    Karras et al. (2022), eq. 5;
    Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (2023), table 2;
    Esser et al., Scaling Rectified Flow Transformers (2024), eq. 23.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process import Array, Flow, Process
from perrin.errors import InvalidInput

__all__ = ["Grid", "explicit", "karras", "leading", "linspace", "log_snr", "shifted", "trailing"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Times and points of a sampling run.

    Attributes:
        process: the forward process.
        times: (N,), strictly decreasing, in the process's own units.
        alpha: (N + 1,) signal scales; the last is 1.
        sigma: (N + 1,) noise scales; the last is 0.
    """

    process: Process
    times: Array
    alpha: Array
    sigma: Array

    def __len__(self) -> int:
        return len(self.times)

    @property
    def half_log_snr(self) -> Array:
        """(N + 1,) lambda = log(alpha / sigma); the last is infinite, and so is the first of a pure-noise start."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha) - np.log(self.sigma)


def explicit(process: Process, times: npt.ArrayLike) -> Grid:
    """The grid of exactly these times, followed by the clean end.

    Raises:
        InvalidInput: the times do not decrease strictly, or leave the process's range.
    """
    t = np.asarray(times, np.float64)
    if t.ndim != 1 or len(t) < 1:
        raise InvalidInput("times", f"shape {t.shape}", "a list of at least one time")
    if not np.isfinite(t).all() or (np.diff(t) >= 0).any():
        raise InvalidInput("times", t.tolist(), "finite, strictly decreasing times")
    if t[0] > process.t_max * (1 + 1e-9) or t[-1] < min(process.t_min, 0.0) or process.sigma(t[-1]) <= 0:
        raise InvalidInput("times", [float(t[0]), float(t[-1])], f"times from {process.t_max:g} down, above 0 noise")
    alpha, sigma = process.alpha(t), process.sigma(t)
    return Grid(process, t, np.append(alpha, 1.0), np.append(sigma, 0.0))


def _steps(steps: int) -> int:
    if not 1 <= steps <= 100_000:
        raise InvalidInput("steps", steps, "an integer of at least 1 and at most 100000")
    return steps


def linspace(process: Process, steps: int) -> Grid:
    """Times evenly from t_max to t_min, both included."""
    return explicit(process, np.linspace(process.t_max, process.t_min, _steps(steps)))


def leading(process: Process, steps: int) -> Grid:
    """Every (T // steps)-th training step, counted from the clean end (as the first DDIM code had it)."""
    count = _count(process, steps)
    return explicit(process, (np.arange(steps) * (count // steps))[::-1])


def trailing(process: Process, steps: int) -> Grid:
    """Every (T / steps)-th training step, counted from the noisy end, which is included."""
    if isinstance(process, Flow):
        return explicit(process, np.linspace(1.0, 0.0, _steps(steps) + 1)[:-1])
    count = _count(process, steps)
    return explicit(process, np.round(np.arange(count, 0, -count / steps))[:steps] - 1)


def _count(process: Process, steps: int) -> int:
    """The number of training steps of a discrete process, at least ``steps``."""
    count = round(process.t_max) + 1
    if process.t_min != 0 or not 1 <= steps <= count:
        raise InvalidInput("steps", steps, f"at least 1 and at most the {count} training steps of a discrete process")
    return count


def _noisiest(process: Process) -> float:
    """log-SNR of the noisiest time at which it is finite."""
    start = process.t_max if np.isfinite(process.log_snr(process.t_max)) else process.t_max * (1 - 1e-3)
    return float(process.log_snr(start))


def karras(process: Process, steps: int, rho: float = 7.0) -> Grid:
    """Noise-to-signal ratios even in their rho-th root (Karras et al., eq. 5)."""
    ratio_max = np.exp(-_noisiest(process) / 2)
    ratio_min = np.exp(-float(process.log_snr(process.t_min)) / 2)
    u = np.linspace(0, 1, _steps(steps))
    ratio = (ratio_max ** (1 / rho) + u * (ratio_min ** (1 / rho) - ratio_max ** (1 / rho))) ** rho
    return _at(process, -2 * np.log(ratio))


def log_snr(process: Process, steps: int) -> Grid:
    """Even in log-SNR (Lu et al., DPM-Solver, 2022, section 3.4)."""
    return _at(process, np.linspace(_noisiest(process), float(process.log_snr(process.t_min)), _steps(steps)))


def _at(process: Process, values: Array) -> Grid:
    """The grid at these log-SNRs; the points are exact even where time is only piecewise smooth."""
    alpha, sigma = process.scales(values)
    t = process.time(values)
    grid = explicit(process, np.clip(t, min(process.t_min, t[-1]), process.t_max))
    return Grid(process, grid.times, np.append(alpha, 1.0), np.append(sigma, 0.0))


def shifted(process: Process, steps: int, shift: float = 3.0) -> Grid:
    """Rectified-flow times t -> shift t / (1 + (shift - 1) t): more where it is noisy (Esser et al., eq. 23)."""
    if not isinstance(process, Flow):
        raise InvalidInput("grid", "shifted", "a flow process; shift changes rectified-flow times only")
    t = np.linspace(1.0, 0.0, _steps(steps) + 1)[:-1]
    return explicit(process, shift * t / (1 + (shift - 1) * t))
