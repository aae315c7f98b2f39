r"""Integrals that exponential integrators are made of, without cancellation.

.. math:: M_k(z) = \int_0^1 e^{-z(1-u)}\, u^k\, du = k!\,\varphi_{k+1}(-z)

and the weights of values at nodes that integrate every polynomial through them: with gains G_k, the exact integral of
u^k, weights w solve sum_j w_j u_j^k = G_k.

References:
    Hochbruck and Ostermann, Exponential Integrators (2010), eq. 2.10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perrin.diffusion.plan import Source

__all__ = ["collocation", "mix", "moments"]


def moments(z: float, count: int) -> list[float]:
    """M_0 .. M_{count-1} at finite ``z`` of either sign, to about 1e-15 relative."""
    if z > 30:
        # Forward recursion divides its errors by z each time; the series below would need as many terms as z.
        made = [-math.expm1(-z) / z]
        for k in range(1, count):
            made.append((1 - k * made[-1]) / z)
        return made
    made = []
    for k in range(count):
        # Both series have positive terms only, so nothing cancels.
        if z >= 0:
            term, total, m = math.exp(-z) / (k + 1), 0.0, 0
            while term > 1e-18 * total:
                total += term
                m += 1
                term *= z * (m + k) / (m * (m + k + 1))
        else:
            term, total, m = 1 / (k + 1), 0.0, 0
            while term > 1e-18 * total:
                total += term
                m += 1
                term *= -z / (m + k + 1)
        made.append(total)
    return made


def collocation(nodes: Sequence[float], gains: Sequence[float]) -> list[float]:
    """Weights w with sum_j w_j nodes_j^k = gains_k for every k below the number of nodes (at most 5, distinct)."""
    powers = np.vander(np.asarray(nodes, np.float64), len(nodes), increasing=True).T
    return [float(w) for w in np.linalg.solve(powers, np.asarray(gains, np.float64))]


def mix(*parts: tuple[float, Mapping[Any, float]]) -> dict[Source, float]:
    """The sum of weighted sums of sources (any keys that are sources; mappings do not widen theirs)."""
    total: dict[Source, float] = {}
    for factor, terms in parts:
        for source, weight in terms.items():
            total[source] = total.get(source, 0.0) + factor * weight
    return total
