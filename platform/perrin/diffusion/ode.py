r"""The probability flow as an ordinary differential equation, in one coordinate for every process.

With theta = atan2(sigma, alpha) and z = x / hypot(alpha, sigma), a noisy sample is cos(theta) x_0 + sin(theta) eps, and

.. math:: \frac{dz}{d\theta} = \frac{\cos\theta\, z - D(x; t)}{\sin\theta}

for variance preserving, exploding and flow processes alike; theta runs from about pi/2 (noise) to about 0 (clean).
These solvers choose their own steps, so they stand beside the loop: a request that uses one runs alone.

References:
    Song et al. (2021), eq. 13; Salimans and Ho (2022), appendix D (the angle);
    Dormand and Prince, A Family of Embedded Runge-Kutta Formulae (1980); Hairer et al., Solving ODEs I, II.4 (steps);
    Lu et al., DPM-Solver (2022), appendix C (adaptive 12).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Point
from perrin.diffusion.guidance import Guidance, Unguided, evaluate
from perrin.diffusion.noise import normals
from perrin.diffusion.process import Process
from perrin.errors import InvalidInput, SamplingError

__all__ = ["Flowing", "Solution", "dpm_adaptive", "rk45", "sample_ode"]

Slope = Callable[[float, Tensor], Tensor]

# Dormand-Prince 5(4): nodes, stages, the fifth-order weights and their difference to the fourth-order ones.
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Solution(NamedTuple):
    """Where the flow ended: the state there, and the evaluations of the slope it took."""

    value: Any
    evaluations: int


class Flowing:
    """The slope dz/dtheta of a guided denoiser.

    Args:
        guidance: what gives the clean estimate.
        condition: its condition.
        process: the forward process; a denoiser's own if left out.
    """

    def __init__(
        self, guidance: Guidance | Denoiser, condition: Condition | None = None, process: Process | None = None
    ) -> None:
        self.guidance: Guidance = Unguided(guidance) if isinstance(guidance, Denoiser) else guidance
        found = process or self.guidance.branches(condition or {}, 0.0)[0].denoiser.process
        if not isinstance(found, Process):
            raise InvalidInput("process", type(found).__name__, "one process, for a state that is one tensor")
        self.process, self.condition = found, dict(condition or {})

    def angle(self, t: float) -> float:
        """theta at time ``t``."""
        return math.atan2(float(self.process.sigma(t)), float(self.process.alpha(t)))

    def point(self, theta: float) -> tuple[Point, float]:
        """The point at ``theta`` in the process's own scale, and that scale, hypot(alpha, sigma)."""
        log_snr = 2 * (math.log(math.cos(theta)) - math.log(math.sin(theta)))
        alpha, sigma = (float(v) for v in self.process.scales(log_snr))
        return Point(float(self.process.time(log_snr)), {"": alpha}, {"": sigma}), math.hypot(alpha, sigma)

    def estimate(self, theta: float, z: Tensor) -> Tensor:
        """D at ``theta`` and z."""
        point, scale = self.point(theta)
        x = z * scale
        outputs = evaluate(self.guidance.branches(self.condition, point.t), x, point)
        clean: Tensor = self.guidance.combine([o.clean for o in outputs], x, point.t, {}).estimate
        return clean

    def __call__(self, theta: float, z: Tensor) -> Tensor:
        return (math.cos(theta) * z - self.estimate(theta, z)) / math.sin(theta)


def rk45(
    slope: Callable[[float, Any], Any],
    value: Any,
    begin: float,
    end: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    most: int = 10_000,
) -> Solution:
    """Integrate from ``begin`` to ``end`` by Dormand-Prince 5(4) with steps chosen by the error of the whole batch.

    Args:
        slope: d value / d theta.
        value: tensor at ``begin``.
        begin: first theta.
        end: last theta, on either side.
        rtol: relative tolerance.
        atol: absolute tolerance.
        most: most steps, refused ones included.

    Raises:
        SamplingError: the steps do not suffice.
    """
    theta, h = begin, (end - begin) / 20
    k1, evaluations = slope(theta, value), 1
    for _ in range(most):
        if abs(end - theta) <= 1e-14 * max(1.0, abs(end)):
            return Solution(value, evaluations)
        h = h if abs(h) < abs(end - theta) else end - theta
        k = [k1]
        for c, row in zip(_C[1:], _A[1:], strict=True):
            moved = value + h * _weighted(row, k)
            k.append(slope(theta + c * h, moved))
        evaluations += len(k) - 1
        scale = atol + rtol * torch.maximum(value.abs(), moved.abs())
        error = float(((h * _weighted(_E, k)) / scale).square().mean().sqrt())
        if not math.isfinite(error):
            raise SamplingError(f"theta = {theta:g}: the slope is not finite; check the network's output")
        if error <= 1:
            theta, value, k1 = theta + h, moved, k[-1]  # the last stage is the next step's first
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
    raise SamplingError(f"{most} steps did not reach theta = {end:g}; loosen rtol = {rtol:g} or atol = {atol:g}")


def _weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    parts = [w * v for w, v in zip(weights, values, strict=False) if w]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def dpm_adaptive(
    flow: Flowing, z: Tensor, begin: float, end: float, *, rtol: float = 0.05, atol: float = 0.0078, most: int = 10_000
) -> Solution:
    """Integrate in log-SNR by DPM-Solver-1 and -2 on the clean estimate, the difference of the two setting the step."""

    def lam(theta: float) -> float:
        return math.log(math.cos(theta)) - math.log(math.sin(theta))

    def at(value: float) -> float:
        return math.atan(math.exp(-value))

    now, last, h, evaluations = lam(begin), lam(end), 0.05, 0
    previous = z
    for _ in range(most):
        if last - now <= 1e-10:
            return Solution(z, evaluations)
        h = min(h, last - now)
        theta, middle, after = at(now), at(now + h / 2), at(now + h)
        first = flow.estimate(theta, z)
        half = math.sin(middle) / math.sin(theta) * z - math.cos(middle) * math.expm1(-h / 2) * first
        second = flow.estimate(middle, half)
        evaluations += 2
        gain, kept = -math.cos(after) * math.expm1(-h), math.sin(after) / math.sin(theta)
        low, high = kept * z + gain * first, kept * z + gain * second
        scale = torch.clamp(rtol * torch.maximum(low.abs(), previous.abs()), min=atol)
        error = float(((low - high) / scale).square().flatten(1).mean(1).sqrt().max())
        if error <= 1:
            now, previous, z = now + h, low, high
        h *= min(4.0, max(0.1, 0.9 * max(error, 1e-10) ** -0.5))
    raise SamplingError(f"{most} steps did not suffice; loosen rtol = {rtol:g} or atol = {atol:g}")


@torch.inference_mode()
def sample_ode(
    guidance: Guidance | Denoiser,
    *,
    shape: Sequence[int],
    seeds: Sequence[int],
    condition: Condition | None = None,
    process: Process | None = None,
    noise: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "rk45",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Solution:
    """Sample by an adaptive solver: clean samples (B, *shape), with the network's evaluations.

    Raises:
        InvalidInput: ``method`` is neither ``rk45`` nor ``dpm_adaptive``.
    """
    flow = Flowing(guidance, condition, process)
    begin, end = flow.angle(flow.process.t_max), flow.angle(flow.process.t_min)
    begin = min(begin, math.pi / 2 - 1e-4)
    drawn = torch.as_tensor(normals(seeds, 0, shape)) if noise is None else noise
    z = math.sin(begin) * drawn.to(device, dtype)
    if method == "rk45":
        out = rk45(flow, z, begin, end, rtol=rtol, atol=atol)
    elif method == "dpm_adaptive":
        out = dpm_adaptive(flow, z, begin, end, rtol=rtol, atol=atol)
    else:
        raise InvalidInput("method", method, "rk45 or dpm_adaptive")
    return Solution(flow.estimate(end, out.value), out.evaluations + 1)
