r"""How likely a sample is: exactly along the probability flow, or bounded by the diffusion.

Along the flow of `perrin.diffusion.ode` the density changes by the divergence of the slope,

.. math:: \log p_0(z_0) = \log p_T(z_T) + \int_{\theta_0}^{\theta_T} \nabla\!\cdot\frac{dz}{d\theta}\, d\theta,
    \qquad \nabla\!\cdot\frac{dz}{d\theta} = \frac{d\,\cos\theta - \mathrm{tr}\,\partial D/\partial z}{\sin\theta}

with the trace exact (one backward pass per dimension) or by Hutchinson's estimator v'(dD/dz)v.

References:
    Song et al. (2021), eq. 39; Grathwohl et al., FFJORD (2019), eq. 8; Ho et al. (2020), eq. 5.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Point
from perrin.diffusion.guidance import Guidance
from perrin.diffusion.noise import normals
from perrin.diffusion.ode import Flowing, rk45
from perrin.diffusion.process import FromBetas
from perrin.errors import InvalidInput

__all__ = ["log_likelihood", "variational_bound"]


def _divergence(flow: Flowing, theta: float, z: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
    """The slope at z, and its divergence (B,); exact where there is no probe."""
    size = z[0].numel()
    with torch.inference_mode(False), torch.enable_grad():
        z = z.clone().requires_grad_()
        estimate = flow.estimate(theta, z)
        if probe is not None:
            gradient = torch.autograd.grad((estimate * probe).sum(), z)[0]
            trace = (gradient * probe).flatten(1).sum(1)
        else:
            flat = estimate.flatten(1)
            rows = [
                torch.autograd.grad(flat[:, i].sum(), z, retain_graph=i + 1 < size)[0].flatten(1)[:, i]
                for i in range(size)
            ]
            trace = torch.stack(rows).sum(0)
    slope = (math.cos(theta) * z - estimate) / math.sin(theta)
    return slope.detach(), (size * math.cos(theta) - trace.detach()) / math.sin(theta)


def log_likelihood(
    guidance: Guidance | Denoiser,
    x: Tensor,
    *,
    condition: Condition | None = None,
    exact: bool = True,
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-6,
) -> Tensor:
    """log p(x) in nats, (B,).

    Args:
        guidance: the model; with guidance it is the density that guidance samples, not that of the data.
        x: (B, ...) clean samples.
        condition: the model's condition.
        exact: exact trace; else Hutchinson's estimate with one Rademacher probe per sample.
        seed: of the probes.
        rtol: of the integration.
        atol: of the integration.
    """
    flow = Flowing(guidance, condition)
    begin = flow.angle(flow.process.t_min)
    end = min(flow.angle(flow.process.t_max), math.pi / 2 - 1e-7)
    probe = None
    if not exact:
        signs = np.sign(normals(range(seed, seed + len(x)), 0, tuple(x.shape[1:]), "probe"))
        probe = torch.as_tensor(signs).to(x)
    size = x[0].numel()

    def slope(theta: float, packed: Tensor) -> Tensor:
        z, _ = packed[:, :size].reshape(x.shape), packed[:, size]
        moved, divergence = _divergence(flow, theta, z, probe)
        return torch.cat([moved.flatten(1), divergence[:, None]], dim=1)

    start = torch.cat([math.cos(begin) * x.flatten(1), torch.zeros_like(x.flatten(1)[:, :1])], dim=1)
    packed = rk45(slope, start, begin, end, rtol=rtol, atol=atol).value
    z, change = packed[:, :size], packed[:, size]
    spread = math.sin(end)
    prior = -0.5 * (z / spread).square().sum(1) - size * math.log(spread * math.sqrt(2 * math.pi))
    # z_0 = cos(theta_0) x changes the volume element.
    out: Tensor = prior + change + size * math.log(math.cos(begin))
    return out


@torch.inference_mode()
def variational_bound(denoiser: Denoiser, x: Tensor, *, condition: Condition | None = None, seed: int = 0) -> Tensor:
    """Upper bound on -log2 p(x) per dimension, (B,): the terms of DDPM's bound summed over all training steps.

    The last term scores x under a normal of the first step's posterior width around the clean estimate, as continuous
    data; for 8-bit pixels in [-1, 1] add log2(127.5).

    Args:
        denoiser: trained under a process given by betas; its posterior variance is the small one.
        x: (B, ...) clean samples.
        condition: the network's condition.
        seed: of the noise.
    """
    process = denoiser.process
    if not isinstance(process, FromBetas):
        raise InvalidInput("process", type(process).__name__, "one given by betas: the bound counts its steps")
    times = np.arange(len(process.betas), dtype=np.float64)
    alpha, sigma = process.alpha(times), process.sigma(times)
    seeds, size = range(seed, seed + len(x)), x[0].numel()
    # KL of q(x_T | x_0) from the standard normal prior.
    a, s = float(alpha[-1]), float(sigma[-1])
    total = 0.5 * ((a * x).square() + s**2 - 1 - 2 * math.log(s)).flatten(1).sum(1)
    for t in range(len(times) - 1, -1, -1):
        point = Point(float(t), {"": float(alpha[t])}, {"": float(sigma[t])})
        noisy = alpha[t] * x + sigma[t] * torch.as_tensor(normals(seeds, t + 1, tuple(x.shape[1:]))).to(x)
        error = (x - denoiser.evaluate(noisy, point, condition or {}).clean).square().flatten(1).sum(1)  # type: ignore[operator]
        snr = (alpha[t] / sigma[t]) ** 2
        if t > 0:
            total = total + 0.5 * ((alpha[t - 1] / sigma[t - 1]) ** 2 - snr) * error
        else:
            width = sigma[0] / alpha[0]
            total = total + 0.5 * error / width**2 + size * math.log(width * math.sqrt(2 * math.pi))
    bits: Tensor = total / (size * math.log(2))
    return bits
