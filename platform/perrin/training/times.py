r"""Where on the way from data to noise a batch is trained: distributions of the time.

A distribution is a map from u in (0, 1) to a time, so that uniform numbers make samples of it and an even spread of
them makes an even spread of times: with ``even``, u_i = ((i + u) mod B) / B for one random u, in random order.

References:
    Kingma et al., Variational Diffusion Models (2021), appendix I.1 (low discrepancy); Esser et al., Scaling Rectified
    Flow Transformers (2024), eq. 19 (logit-normal); Karras et al., EDM (2022), table 1 (log-normal noise levels).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from perrin.diffusion.process import Array, Process
from perrin.diffusion.process.base import logistic

__all__ = ["Times"]


class Times(BaseModel):
    """A distribution of times.

    Attributes:
        kind: ``uniform`` in time; ``logit_normal``: the logistic of a normal number, over the range of the process;
            ``log_normal``: log(sigma / alpha) is normal, EDM's; ``uniform_log_snr``.
        mean, deviation: of the normal number, where there is one. EDM takes -1.2 and 1.2.
        even: spread a batch evenly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uniform", "logit_normal", "log_normal", "uniform_log_snr"] = "uniform"
    mean: float = 0.0
    deviation: float = Field(1.0, gt=0)
    even: bool = True

    def draw(self, size: int, process: Process, generator: torch.Generator) -> Array:
        """``size`` times of ``process``, float64."""
        if self.even:
            start = torch.rand((), generator=generator, dtype=torch.float64)
            u = (torch.arange(size) + start) / size
            u = u[torch.randperm(size, generator=generator)]
        else:
            u = torch.rand(size, generator=generator, dtype=torch.float64)
        return self.at(u.clamp(1e-6, 1 - 1e-6), process)

    def at(self, u: Tensor, process: Process) -> Array:
        """The times at the quantiles ``u``: the inverse of the distribution function."""
        flat: Array = u.double().numpy()
        normal: Array = (self.mean + self.deviation * torch.special.ndtri(u.double())).numpy()
        low, high = process.t_min, process.t_max
        match self.kind:
            case "uniform":
                return low + (high - low) * flat
            case "logit_normal":
                return low + (high - low) * logistic(normal)
            case "log_normal":
                return _time(process, -2 * normal)
            case "uniform_log_snr":
                most, least = _ends(process)
                return _time(process, least + (most - least) * (1 - flat))


def _ends(process: Process) -> tuple[float, float]:
    """Log-SNR at both ends, brought into the range that a network can be told."""
    most, least = (float(np.clip(process.log_snr(t), -20.0, 20.0)) for t in (process.t_min, process.t_max))
    return most, least


def _time(process: Process, log_snr: npt.NDArray[np.float64]) -> Array:
    most, least = _ends(process)
    return process.time(np.clip(log_snr, least, most))
