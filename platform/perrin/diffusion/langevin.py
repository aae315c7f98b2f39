r"""Langevin sampling: steps along the score with fresh noise, by themselves or correcting a plan's rows.

.. math:: x \leftarrow x + \epsilon\, s(x) + \sqrt{2 \epsilon}\, n, \qquad s(x) = \frac{\alpha D(x; t) - x}{\sigma^2}

The step size follows from the norms of score and noise, so these are not tables and stand beside the loop.

References:
    Song and Ermon, Generative Modeling by Estimating Gradients of the Data Distribution (2019), algorithm 1;
    Song et al. (2021), algorithms 2-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Point
from perrin.diffusion.grid import Grid
from perrin.diffusion.guidance import Guidance, Unguided, evaluate
from perrin.diffusion.noise import normals
from perrin.diffusion.plan import Plan
from perrin.diffusion.sampling import Run
from perrin.errors import InvalidInput

__all__ = ["annealed", "predictor_corrector"]

FIELD = "langevin"


class _Chain:
    """Draws of its own, and the score at a point."""

    def __init__(self, guidance: Guidance, condition: Condition, seeds: Sequence[int], shape: Sequence[int]) -> None:
        self.guidance, self.condition, self.seeds, self.shape = guidance, condition, tuple(seeds), tuple(shape)
        self.drawn = 0

    def noise(self, like: Tensor) -> Tensor:
        """The next draw, (B, *shape)."""
        self.drawn += 1
        return torch.as_tensor(normals(self.seeds, self.drawn, self.shape, FIELD)).to(like)

    def score(self, x: Tensor, point: Point) -> Tensor:
        """s(x), of the shape of x."""
        outputs = evaluate(self.guidance.branches(self.condition, point.t), x, point)
        clean: Tensor = self.guidance.combine([o.clean for o in outputs], x, point.t, {}).estimate
        out: Tensor = (point.alpha[""] * clean - x) / point.sigma[""] ** 2
        return out

    def step(self, x: Tensor, point: Point, size: float | Tensor) -> Tensor:
        """One Langevin step of the given size."""
        return x + size * self.score(x, point) + (2 * torch.as_tensor(size)) ** 0.5 * self.noise(x)


def _points(grid: Grid) -> list[Point]:
    return [
        Point(float(t), {"": float(a)}, {"": float(s)})
        for t, a, s in zip(grid.times, grid.alpha[:-1], grid.sigma[:-1], strict=True)
    ]


@torch.inference_mode()
def annealed(
    denoiser: Guidance | Denoiser,
    grid: Grid,
    *,
    shape: Sequence[int],
    seeds: Sequence[int],
    steps: int = 100,
    size: float = 2e-5,
    condition: Condition | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Annealed Langevin dynamics: ``steps`` at every level of ``grid``, then one clean estimate.

    Args:
        denoiser: the model, or guidance.
        grid: levels, noisiest first.
        shape: of a sample.
        seeds: one per sample.
        steps: T, at each level.
        size: step size at the cleanest level; it grows with sigma^2.
        condition: the network's condition.
        dtype: of the samples.
    """
    if steps < 1 or not size > 0:
        raise InvalidInput("steps", (steps, size), "at least 1 step, of a size above 0")
    guidance: Guidance = Unguided(denoiser) if isinstance(denoiser, Denoiser) else denoiser
    chain = _Chain(guidance, condition or {}, seeds, shape)
    points = _points(grid)
    x = points[0].sigma[""] * torch.as_tensor(normals(chain.seeds, 0, chain.shape)).to(dtype)
    for point in points:
        for _ in range(steps):
            x = chain.step(x, point, size * (point.sigma[""] / points[-1].sigma[""]) ** 2)
    last = points[-1]
    clean: Tensor = (x + last.sigma[""] ** 2 * chain.score(x, last)) / last.alpha[""]
    return clean


@torch.inference_mode()
def predictor_corrector(
    denoiser: Guidance | Denoiser,
    plan: Plan,
    *,
    shape: Sequence[int],
    seeds: Sequence[int],
    corrections: int = 1,
    snr: float = 0.16,
    condition: Condition | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A one-register plan (such as `ddpm`) whose every row is followed by Langevin corrections at the level it reached.

    Args:
        denoiser: the model, or guidance.
        plan: the predictor; its rows start at its levels.
        shape: of a sample.
        seeds: one per sample.
        corrections: Langevin steps after each row.
        snr: r; the step size is 2 alpha^2 (r |noise| / |score|)^2, with norms averaged over the batch.
        condition: the network's condition.
        dtype: of the samples.
    """
    if plan.registers != 1:
        raise InvalidInput("plan", plan.solver, "a plan of one register: corrections would make a history stale")
    run = Run(denoiser, plan, shape=shape, seeds=seeds, condition=condition, dtype=dtype)
    chain = _Chain(run.guidance, condition or {}, seeds, shape)
    while not run.done:
        run.step()
        if run.done:
            break
        row = plan.rows[run.row]
        point = Point(row.t, {"": row.alpha}, {"": row.sigma})
        for _ in range(corrections):
            x = run.state
            score, noise = chain.score(x, point), chain.noise(x)
            ratio = noise.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
            alpha = min(row.alpha) if isinstance(row.alpha, tuple) else row.alpha
            size = 2 * min(1.0, alpha) ** 2 * (snr * ratio) ** 2
            run.replace(x + size * score + (2 * size) ** 0.5 * noise)
    out: Tensor = run.result
    return out
