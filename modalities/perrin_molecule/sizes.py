"""How many atoms a molecule has where nobody says: as often as the training data have it, from its seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from perrin.diffusion.noise import uniforms

__all__ = ["draw"]


def draw(sizes: Mapping[int, int], seeds: Sequence[int]) -> list[int]:
    """A number of atoms for each seed, drawn by how often ``sizes`` have it."""
    known = list(sizes)
    chances = np.cumsum([sizes[size] for size in known], dtype=np.float64)
    drawn = uniforms(seeds, 0, (1,), "atoms")[:, 0] * chances[-1]
    return [known[int(k)] for k in np.searchsorted(chances, drawn)]
