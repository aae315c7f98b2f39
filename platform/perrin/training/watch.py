r"""Two numbers that tell of a run gone wrong: samples that are all alike, and samples that are copies.

Distances are Euclidean, in whatever space the samples are handed over in (latents do well).

References:
    The second follows Carlini et al., Extracting Training Data from Diffusion Models (2023), section 4.1: near in
    comparison with how near data are to each other, not near in itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["diversity", "memorised", "nearest"]


def diversity(samples: Tensor, data: Tensor) -> float:
    """Mean distance between two samples (N, ...) over that of two of the data (M, ...): about 1 when all is well."""

    def spread(x: Tensor) -> Tensor:
        apart = torch.cdist(x.flatten(1).float(), x.flatten(1).float())
        return apart.sum() / max(1, len(x) * (len(x) - 1))

    return float(spread(samples) / spread(data).clamp(min=1e-12))


def nearest(samples: Tensor, data: Tensor, itself: bool = False) -> tuple[Tensor, Tensor]:
    """For each sample the distance to the nearest of the data, and its index: (N,), (N,).

    Args:
        samples: (N, ...).
        data: (M, ...).
        itself: the samples are the data, and none is its own neighbour.
    """
    found, wide = [], data.flatten(1).float()
    for start in range(0, len(samples), 256):
        apart = torch.cdist(samples[start : start + 256].flatten(1).float(), wide)
        if itself:
            rows = torch.arange(len(apart))
            apart[rows, start + rows] = torch.inf
        found.append(apart.min(1))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def memorised(samples: Tensor, data: Tensor, share: float = 0.5) -> float:
    """Share of the samples that are nearer to one of the data than ``share`` of the median such distance of data."""
    among = nearest(data[:512], data, itself=True)[0].median()
    return float((nearest(samples, data)[0] < share * among).float().mean())
