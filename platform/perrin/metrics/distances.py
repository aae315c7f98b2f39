r"""How far one set is from another, in features of its items.

The Frechet distance takes both for Gaussians,

.. math:: d^2 = |\mu_x - \mu_y|^2 + \operatorname{tr}\bigl(\Sigma_x + \Sigma_y - 2(\Sigma_x\Sigma_y)^{1/2}\bigr)

and grows as sets get smaller, so it is only compared between sets of one size. The kernel distance is the unbiased
estimate of the squared maximum mean discrepancy under k(x, y) = (x . y / width + 1)^3, whose expectation does not
depend on the size,

.. math:: \hat d = \frac{1}{m(m-1)}\sum_{i\ne j} k(x_i, x_j) + \frac{1}{n(n-1)}\sum_{i\ne j} k(y_i, y_j)
                 - \frac{2}{mn}\sum_{i,j} k(x_i, y_j)

References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017), eq. 6; Binkowski et al., Demystifying MMD GANs
    (2018), section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from perrin.errors import InvalidInput

__all__ = ["Kernel", "frechet", "kernel", "kernel_once"]


class Kernel(NamedTuple):
    """The kernel distance's mean over subsets, and their deviation."""

    mean: float
    spread: float


def frechet(x: Tensor, y: Tensor) -> float:
    """d^2 of features (N, width) and (M, width), in float64.

    Raises:
        InvalidInput: fewer than two of either, or of another width.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    a, b = _covariance(x), _covariance(y)
    # The eigenvalues of A B are those of the symmetric R B R with R R = A.
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    return float(apart + a.trace() + b.trace() - 2 * both)


def kernel(x: Tensor, y: Tensor, subsets: int = 100, size: int = 500, seed: int = 0) -> Kernel:
    """The kernel distance of features (N, width) and (M, width), over random subsets.

    Args:
        x, y: features.
        subsets: how many pairs of subsets.
        size: of a subset, or as many as there are.
        seed: of the choice.

    Raises:
        InvalidInput: fewer than two of either, or of another width.
    """
    _check(x, y)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        some = [z[torch.randperm(len(z), generator=generator)[:size]] for z in (x, y)]
        values.append(kernel_once(some[0], some[1]))
    found = torch.tensor(values, dtype=torch.float64)
    return Kernel(float(found.mean()), float(found.std()) if subsets > 1 else 0.0)


def kernel_once(x: Tensor, y: Tensor) -> float:
    """The kernel distance of these two sets as they are, in float64."""
    x, y = x.double(), y.double()

    def k(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def within(p: Tensor) -> Tensor:
        table = k(p, p)
        return (table.sum() - table.trace()) / (len(p) * (len(p) - 1))

    return float(within(x) + within(y) - 2 * k(x, y).mean())


def _covariance(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    return x.T @ x / (len(x) - 1)


def _check(x: Tensor, y: Tensor) -> None:
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise InvalidInput("features", f"{tuple(x.shape)} and {tuple(y.shape)}", "(N, width) and (M, width), N, M >= 2")
