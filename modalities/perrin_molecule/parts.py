"""Which atoms of a molecule are told when it is learnt to complete molecules: scaffolds, fragments, ends of linkers.

A fragment grows from a random heavy atom along bonds. Its hydrogens are told as well in half of the molecules, each by
chance, so that a fragment may have open places or none.

References:
    Igashov et al., Equivariant 3D-conditional diffusion model for molecular linker design (2024); Lim et al.,
    Scaffold-based molecular design with a graph generative model (2020).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["chosen"]

PAIRS = 0.35
"""How often two fragments are told that nothing joins."""

HYDROGENS = 0.6
"""Chance of a hydrogen of a fragment, where any are told."""


def chosen(
    kinds: npt.NDArray[np.integer], bonds: npt.NDArray[np.integer], size: int, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """(N,) which atoms are told, at least one and not all.

    Args:
        kinds: (N,) classes; 0 is hydrogen.
        bonds: (N (N - 1) / 2,) classes of the list of pairs.
        size: number of atoms.
        generator: of the draws.
    """
    joined = _joined(bonds, size)
    heavy = np.flatnonzero(kinds[:size] > 0)
    told = np.zeros(len(kinds), bool)
    budget = int(generator.integers(1, max(2, len(heavy))))
    if budget >= 2 and generator.random() < PAIRS:
        first = int(generator.integers(1, budget))
        told[_grown(joined, heavy, first, told, generator)] = True
        told[_grown(joined, heavy, budget - first, told, generator)] = True
    else:
        told[_grown(joined, heavy, budget, told, generator)] = True
    if generator.random() < 0.5:
        light = (kinds[:size] == 0) & joined[told[:size]].any(0)
        told[:size] |= light & (generator.random(size) < HYDROGENS)
    return told


def _joined(bonds: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.bool_]:
    found = np.zeros((size, size), bool)
    j, i = np.tril_indices(size, -1)
    found[i, j] = found[j, i] = bonds[: len(i)] > 0
    return found


def _grown(
    joined: npt.NDArray[np.bool_],
    heavy: npt.NDArray[np.integer],
    count: int,
    taken: npt.NDArray[np.bool_],
    generator: np.random.Generator,
) -> list[int]:
    """At most ``count`` heavy atoms that hang together, apart from those that are taken; none if there is no room."""
    near = taken[: len(joined)] | joined[taken[: len(joined)]].any(0)
    free = np.zeros(len(joined), bool)
    free[heavy] = ~near[heavy]
    if not free.any():
        return []
    found = [int(generator.choice(np.flatnonzero(free)))]
    while len(found) < count:
        beside = free & joined[found].any(0)
        beside[found] = False
        if not beside.any():
            break
        found.append(int(generator.choice(np.flatnonzero(beside))))
    return found
