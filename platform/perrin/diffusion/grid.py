"""Time grids: where along the process a solver evaluates the network.

A `Grid` of N steps holds N times t_0 > t_1 > ... > t_{N-1}, and N + 1 points (alpha, sigma): those of the times and the
end, which is clean (1, 0). Spacings are chosen in time, in log-SNR, or in the noise-to-signal ratio sigma / alpha.

References:
    Karras et al. (2022), eq. 5;
    Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (2023), table 2;
    Esser et al., Scaling Rectified Flow Transformers (2024), eq. 23.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from perrin.diffusion.process import Array, Flow, Process
from perrin.errors import InvalidInput

__all__ = [
    "Grid",
    "beta",
    "distilled",
    "explicit",
    "exponential",
    "flow",
    "karras",
    "leading",
    "linear_quadratic",
    "linspace",
    "log_snr",
    "polyexponential",
    "resolution_shift",
    "shifted",
    "trailing",
]


@dataclass(frozen=True, eq=False)
class Grid:
    """Times and points of a sampling run.

    Attributes:
        process: the forward process.
        times: (N,), strictly decreasing, in the process's own units.
        alpha: (N + 1,) signal scales; the last is 1. For a process per channel (N + 1, C).
        sigma: (N + 1,) noise scales; the last is 0. Likewise.
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

    def tail(self, part: float) -> Grid:
        """The rest of the grid, for a run that begins at a noised sample and not at noise.

        Args:
            part: of the first time, 0 to 1; the rest begins at the time nearest to it. 1 is the whole grid.

        Raises:
            InvalidInput: ``part`` is not from 0 to 1.
        """
        if not 0 <= part <= 1:
            raise InvalidInput("part", part, "a number of at least 0 and at most 1")
        first = int(np.argmin(np.abs(self.times - part * self.times[0])))
        return replace(self, times=self.times[first:], alpha=self.alpha[first:], sigma=self.sigma[first:])


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
    if t[0] > process.t_max * (1 + 1e-9) or t[-1] < min(process.t_min, 0.0) or (process.sigma(t[-1]) <= 0).any():
        raise InvalidInput("times", [float(t[0]), float(t[-1])], f"times from {process.t_max:g} down, above 0 noise")
    return _ended(process, t, process.alpha(t), process.sigma(t))


def _ended(process: Process, t: Array, alpha: Array, sigma: Array) -> Grid:
    """The grid of these points and the clean end."""
    clean = np.ones_like(alpha[:1])
    return Grid(process, t, np.concatenate([alpha, clean]), np.concatenate([sigma, 0 * clean]))


def _steps(steps: int) -> int:
    if not 1 <= steps <= 100_000:
        raise InvalidInput("steps", steps, "an integer of at least 1 and at most 100000")
    return steps


def linspace(process: Process, steps: int, spare: int = 0) -> Grid:
    """Times evenly from t_max to t_min, both included.

    Args:
        process: the forward process.
        steps: N.
        spare: so many of N + spare even times are left out at the clean end, and the others are rounded, as DPM-Solver
            code has it with 1.
    """
    times = np.linspace(process.t_max, process.t_min, _steps(steps) + spare)[:steps]
    return explicit(process, np.round(times) if spare else times)


def leading(process: Process, steps: int, offset: int = 0, spare: int = 0) -> Grid:
    """Every (T // steps)-th training step, counted from the clean end (as the first DDIM code had it).

    Args:
        process: a discrete process of T training steps.
        steps: N.
        offset: training steps that all times are later.
        spare: as of `linspace`.
    """
    count = _count(process, steps + spare)
    times = (np.arange(spare, steps + spare) * (count // (steps + spare)) + offset)[::-1]
    return explicit(process, np.minimum(times, process.t_max))


def distilled(process: Process, steps: int, original: int = 50) -> Grid:
    """Even picks from the ``original`` times that a distilled model learnt (Luo et al., LCM, 2023, section 4.3)."""
    count = _count(process, original)
    if steps > original:
        raise InvalidInput("steps", steps, f"at most {original}, the steps that the model was distilled with")
    learnt = (np.arange(1, original + 1) * (count // original) - 1)[::-1]
    return explicit(process, learnt[np.floor(np.linspace(0, original, _steps(steps), endpoint=False)).astype(int)])


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
    start = process.t_max if np.isfinite(process.log_snr(process.t_max)).all() else process.t_max * (1 - 1e-3)
    return float(np.ravel(process.log_snr(start))[0])


def _cleanest(process: Process) -> float:
    return float(np.ravel(process.log_snr(process.t_min))[0])


def karras(process: Process, steps: int, rho: float = 7.0) -> Grid:
    """Noise-to-signal ratios even in their rho-th root (Karras et al., eq. 5)."""
    ratio_max = np.exp(-_noisiest(process) / 2)
    ratio_min = np.exp(-_cleanest(process) / 2)
    u = np.linspace(0, 1, _steps(steps))
    ratio = (ratio_max ** (1 / rho) + u * (ratio_min ** (1 / rho) - ratio_max ** (1 / rho))) ** rho
    return _at(process, -2 * np.log(ratio))


def log_snr(process: Process, steps: int) -> Grid:
    """Even in log-SNR (Lu et al., DPM-Solver, 2022, section 3.4)."""
    return _at(process, np.linspace(_noisiest(process), _cleanest(process), _steps(steps)))


def _at(process: Process, values: Array) -> Grid:
    """The grid at these log-SNRs; the points are exact even where time is only piecewise smooth."""
    alpha, sigma = process.scales(values)
    t = process.time(values)
    grid = explicit(process, np.clip(t, min(process.t_min, t[-1]), process.t_max))
    return _ended(process, grid.times, alpha, sigma)


def exponential(process: Process, steps: int) -> Grid:
    """Noise-to-signal ratios in geometric progression: another name for `log_snr`."""
    return log_snr(process, steps)


def polyexponential(process: Process, steps: int, rho: float = 1.0) -> Grid:
    """log of the noise-to-signal ratio as a power of the step: rho > 1 spends more steps where it is clean."""
    if not rho > 0:
        raise InvalidInput("rho", rho, "a number above 0")
    ramp = np.linspace(1, 0, _steps(steps)) ** rho
    return _at(process, _cleanest(process) + ramp * (_noisiest(process) - _cleanest(process)))


def beta(process: Process, steps: int, a: float = 0.6, b: float = 0.6) -> Grid:
    """Times at even quantiles of a Beta(a, b) distribution, dense at both ends (Lee et al., Beta Sampling, 2024)."""
    if not (a > 0 and b > 0):
        raise InvalidInput("a", (a, b), "two numbers above 0")
    # The distribution function, integrated in u with x = sin^2 u, where the density has no poles.
    u = np.linspace(0, np.pi / 2, 200_001)[1:-1]
    density = np.sin(u) ** (2 * a - 1) * np.cos(u) ** (2 * b - 1)
    mass = np.cumsum(density)
    quantile = np.interp(np.linspace(1, 0, _steps(steps) + 1)[:-1], mass / mass[-1], np.sin(u) ** 2)
    quantile[0] = 1.0
    return explicit(process, process.t_min + quantile * (process.t_max - process.t_min))


def linear_quadratic(process: Process, steps: int, threshold: float = 0.025, linear: int | None = None) -> Grid:
    """Flow times that first fall linearly by ``threshold``, then quadratically (Polyak et al., Movie Gen, 2024, 3.4).

    Args:
        process: a flow process.
        steps: N.
        threshold: how far the linear part falls.
        linear: steps of the linear part; half of them if left out.
    """
    if not isinstance(process, Flow):
        raise InvalidInput("grid", "linear_quadratic", "a flow process")
    first = _steps(steps) // 2 if linear is None else linear
    if not 0 < first < steps or not 0 < threshold < 1:
        raise InvalidInput("linear", first, f"at least 1 and below the {steps} steps, with a threshold in (0, 1)")
    slope, rest = threshold / first, steps - first
    k = np.arange(rest)
    bend = (1 - threshold - slope * rest) / rest**2
    fallen = np.concatenate([slope * np.arange(first), threshold + slope * k + bend * k**2])
    return explicit(process, 1 - fallen)


def resolution_shift(tokens: int, low: tuple[int, float] = (256, 0.5), high: tuple[int, float] = (4096, 1.15)) -> float:
    """The shift for a picture of ``tokens`` tokens: exp of the line through two (tokens, log-shift) points.

    The defaults are those of Flux (Esser et al., 2024, section 5.3.2, gives the idea).
    """
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return float(np.exp(low[1] + slope * (tokens - low[0])))


def shifted(process: Process, steps: int, shift: float = 3.0, terminal: float = 0.0) -> Grid:
    """Rectified-flow times t -> shift t / (1 + (shift - 1) t): more where it is noisy (Esser et al., eq. 23).

    ``terminal`` stretches them so that the last one is this; 0 does not.
    """
    if not isinstance(process, Flow):
        raise InvalidInput("grid", "shifted", "a flow process; shift changes rectified-flow times only")
    t = np.linspace(1.0, 0.0, _steps(steps) + 1)[:-1]
    return explicit(process, _stretched(shift * t / (1 + (shift - 1) * t), terminal))


def _stretched(t: Array, terminal: float) -> Array:
    """Times whose last is ``terminal``, if it is not 0 and there is more than one."""
    return 1 - (1 - t) * (1 - terminal) / (1 - t[-1]) if terminal and len(t) > 1 else t


def flow(process: Process, steps: int, shift: float = 1.0, trained: int = 1000, terminal: float = 0.0) -> Grid:
    """Rectified-flow times evenly between the noisiest and cleanest of so many trained ones, all shifted.

    The trained ones are shifted already, so that the cleanest time is shifted twice, as Stable Diffusion 3 has it.

    Args:
        process: a flow process.
        steps: N.
        shift: as of `shifted`.
        trained: how many times the model was trained at, evenly from 1 down to one part in so many.
        terminal: stretch the times so that the last one is this; 0 does not.
    """
    first = shift / trained / (1 + (shift - 1) / trained)
    t = np.linspace(1.0, first, _steps(steps))
    return explicit(process, _stretched(shift * t / (1 + (shift - 1) * t), terminal))
