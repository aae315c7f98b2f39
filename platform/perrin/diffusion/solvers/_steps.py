r"""One step of a solver, from a point a to a less noisy point b, in one of four spaces.

With lambda = log(alpha / sigma), h = lambda_b - lambda_a, s = sigma / alpha and D = (x - sigma epsilon) / alpha, the
probability flow (eta = 0) and the reverse diffusions (eta > 0, eta = 1 the classical one) are solved by

.. math::
    \text{clean:}\quad x_b &= \tfrac{\sigma_b}{\sigma_a} e^{-\eta h} x_a
        + (1+\eta)\,\alpha_b \int_0^h e^{-(1+\eta)(h-\tau)} D\, d\tau + \sigma_b \sqrt{1 - e^{-2\eta h}}\; n \\
    \text{noise:}\quad x_b &= \tfrac{\alpha_b}{\alpha_a} x_a
        - (1+\eta)\,\sigma_b \int_0^h e^{h-\tau} \epsilon\, d\tau + \alpha_b \sqrt{\eta\,(s_a^2 - s_b^2)}\; n \\
    \text{ratio:}\quad x_b &= \tfrac{\alpha_b}{\alpha_a} x_a + \alpha_b \int_{s_a}^{s_b} \epsilon\, ds \\
    \text{flow:}\quad x_b &= x_a + \int_{\sigma_a}^{\sigma_b} u\, d\sigma, \qquad u = \frac{x - D}{\sigma}
        \quad\text{if}\quad \alpha + \sigma = 1

and a solver puts a polynomial through the values of D, epsilon or u that it has, in lambda, s or sigma.

References:
    Lu et al., DPM-Solver (2022), eq. 3.4; Lu et al., DPM-Solver++ (2022), eq. 8; Karras et al. (2022), eq. 4;
    Xue et al., SA-Solver (2023), eq. 9, with tau^2 = eta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from perrin.diffusion.grid import Grid
from perrin.diffusion.plan import Source
from perrin.diffusion.process import Process
from perrin.diffusion.solvers._weights import collocation, mix, moments

__all__ = ["Point", "Second", "Space", "Step", "between", "level", "points", "reading", "renoised"]

Space = Literal["clean", "noise", "ratio", "flow"]

Second = Literal["exact", "bh1", "bh2"]
"""How two nodes weigh the slope: by its exact integral, or by half of z, or by half of the integral of 1, which agree
to the second order (the B(h) of UniPC; DPM-Solver-2 and DPM-Solver++(2M) are bh2)."""


@dataclass(frozen=True)
class Point:
    """A time with its levels. Clean is (1, 0), pure noise (0, sigma)."""

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """log(alpha / sigma), infinite at both ends."""
        if self.alpha <= 0 or self.sigma <= 0:
            return -math.inf if self.alpha <= 0 else math.inf
        return math.log(self.alpha) - math.log(self.sigma)

    @property
    def ratio(self) -> float:
        """sigma / alpha."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf


def points(grid: Grid) -> list[Point]:
    """The N + 1 points of a grid; the last, the clean end, is never evaluated and has no time of its own."""
    times = [*grid.times, 0.0]
    return [Point(float(t), float(a), float(s)) for t, a, s in zip(times, grid.alpha, grid.sigma, strict=True)]


def level(process: Process, lam: float) -> Point:
    """The point of a process at a finite lambda."""
    alpha, sigma = process.scales(2 * lam)
    return Point(float(process.time(2 * lam)), float(alpha), float(sigma))


def between(process: Process, a: Point, b: Point, fraction: float) -> Point:
    """The point at ``fraction`` of the way from a to b in lambda."""
    return level(process, a.lam + fraction * (b.lam - a.lam))


def reading(space: Space, point: Point) -> dict[Source, float]:
    """The present row's D, epsilon or u, as terms."""
    if space == "clean":
        return {"estimate": 1.0}
    if space == "flow":
        return {"x": 1 / point.sigma, "estimate": -1 / point.sigma}
    return {"x": 1 / point.sigma, "estimate": -point.alpha / point.sigma}


def renoised(terms: Mapping[Source, float], share: float, point: Point) -> dict[Source, float]:
    """``terms`` with the share of x that only re-noises turned to the direction; the same where D and E agree."""
    return mix((1.0, terms), (share * point.alpha, {"estimate": 1.0, "direction": -1.0}))


@dataclass(frozen=True)
class Step:
    """From ``a`` to ``b``.

    Infinitely long steps, from pure noise and to the clean end, have a limit of the first order, that of clean space,
    unless the space has none of them; `Step.of` goes over to it.
    """

    space: Space
    a: Point
    b: Point
    eta: float = 0.0
    single: bool = False

    @classmethod
    def of(cls, space: Space, a: Point, b: Point, eta: float = 0.0) -> Step:
        """The step in ``space`` where that is finite, in clean space otherwise."""
        step = cls(space, a, b, eta)
        if space != "flow" and (a.alpha <= 0 or (b.sigma <= 0 and space != "ratio")):
            return replace(step, space="clean", single=True)
        return step

    @property
    def h(self) -> float:
        """lambda_b - lambda_a."""
        return self.b.lam - self.a.lam

    @property
    def share(self) -> float:
        """What a step of the first order keeps of x_a's noise."""
        return self.b.sigma / self.a.sigma * (math.exp(-self.eta * self.h) if self.eta else 1.0)

    @property
    def kept(self) -> float:
        """Weight of x_a."""
        if self.space == "flow":
            return 1.0
        return self.share if self.space == "clean" else self.b.alpha / self.a.alpha

    @property
    def noise(self) -> float:
        """Weight of the step's draw."""
        return self.segment(self.a, self.b)

    def segment(self, p: Point, q: Point) -> float:
        """Weight of what the path draws between p and q, which lie between a and b, in x_b."""
        if not self.eta or not self.b.sigma:
            return 0.0
        if self.space == "noise":
            return self.b.alpha * math.sqrt(self.eta * (p.ratio**2 - q.ratio**2))
        past, future = 2 * self.eta * (q.lam - p.lam), 2 * self.eta * (self.b.lam - q.lam)
        return self.b.sigma * math.sqrt(math.exp(-future) * -math.expm1(-past))

    def gains(self, count: int) -> list[float]:
        """Integrals of u^k, k below ``count``, where u is 0 at a and 1 at b."""
        if self.single:
            return [self.b.alpha]
        if self.space in ("ratio", "flow"):
            ratio = self.space == "ratio"
            width = self.b.alpha * (self.b.ratio - self.a.ratio) if ratio else self.b.sigma - self.a.sigma
            return [width / (k + 1) for k in range(count)]
        z = (1 + self.eta) * self.h if self.space == "clean" else -self.h
        return [self._scale * m for m in moments(z, count)]

    @property
    def _scale(self) -> float:
        level = self.b.alpha if self.space == "clean" else -self.b.sigma
        return (1 + self.eta) * self.h * level

    def place(self, point: Point) -> float:
        """u of a point."""
        if self.space == "ratio":
            return (point.ratio - self.a.ratio) / (self.b.ratio - self.a.ratio)
        return (point.lam - self.a.lam) / self.h

    def weights(self, nodes: Sequence[Point], second: Second = "exact") -> list[float]:
        """Weights of the values at ``nodes``, the first of which is a; ``second`` is for two nodes only."""
        gains = self.gains(len(nodes))
        if len(nodes) == 1:
            return gains
        if len(nodes) == 2 and second != "exact":
            gains[1] = (self._scale if second == "bh1" else gains[0]) / 2
        return collocation([self.place(node) for node in nodes], gains)
