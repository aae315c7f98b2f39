"""Whether made shapes are copies: how far each is from the nearest shape that was trained on.

A few coarse points find the candidates, all points the nearest of them. Beside the distances of made shapes stand those
of real ones that were not trained on: a model that copies is much nearer to its training set than these are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perrin_shape.metrics.distances import chamfers

__all__ = ["Nearest", "copied", "nearest_of"]

COARSE = 128
"""Points for finding candidates."""

CANDIDATES = 12


class Nearest(NamedTuple):
    """The nearest of a set to each of N clouds.

    Attributes:
        distance: (N,) Chamfer.
        number: (N,) which.
    """

    distance: NDArray[np.float64]
    number: NDArray[np.int64]


def nearest_of(clouds: Tensor, trained: Tensor) -> Nearest:
    """The nearest of ``trained`` (M, m, 3) to each of ``clouds`` (N, n, 3), by the Chamfer distance."""
    few, all_few = clouds[:, :COARSE].float(), trained[:, :COARSE].float()
    rough = np.stack([_rough(cloud, all_few) for cloud in few])
    chosen = np.argsort(rough, 1)[:, :CANDIDATES]
    exact = np.concatenate([chamfers(clouds[i : i + 1], trained[row]) for i, row in enumerate(chosen)])
    best = exact.argmin(1)
    rows = np.arange(len(clouds))
    return Nearest(exact[rows, best], chosen[rows, best])


def copied(made: Nearest, real: Nearest, share: float = 0.01) -> float:
    """The share of made shapes that are nearer to the training set than all but ``share`` of the real ones are."""
    return float((made.distance < np.quantile(real.distance, share)).mean())


def _rough(cloud: Tensor, others: Tensor) -> NDArray[np.float32]:
    found = []
    for part in others.split(512):
        squares = torch.cdist(cloud[None].expand(len(part), -1, -1), part).square()
        found.append(squares.amin(2).mean(1) + squares.amin(1).mean(1))
    return np.asarray(torch.cat(found).numpy(), np.float32)
