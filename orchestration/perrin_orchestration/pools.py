"""Pools by modality and memory, so that a job waits for a device that holds its model.

A model that fits a device of 8 GiB belongs to the pool called after its modality, a larger one to, say, ``image-24g``.
A worker serves every pool of its modalities that its smallest device has the memory for. One that is told to serve a
larger one does, and keeps part of the model outside the device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from perrin.errors import UnknownName
from perrin.models import ModelCard

__all__ = ["check_pools", "pool_of", "pools_for"]

SIZES = (8, 16, 24, 48, 80, 192)
"""Memory of a device in GiB; the first is the pool without a suffix."""

GIB = 1 << 30

HEADROOM = 1.4
"""Memory that a model takes while it runs, over the bytes of its weights."""

NOMINAL = 0.9
"""A device that is sold as 24 GB shows at least this much of 24 GiB."""


def pool_of(card: ModelCard) -> str:
    """The pool of a model's jobs."""
    need = HEADROOM * sum((card.folder / name).stat().st_size for name in card.files)
    size = next((size for size in SIZES if need <= NOMINAL * size * GIB), SIZES[-1])
    return _name(card.modality, size)


def pools_for(modalities: Iterable[str], memory: int) -> tuple[str, ...]:
    """The pools that a device of ``memory`` bytes serves; the smallest ones always."""
    sizes = [size for size in SIZES if size == SIZES[0] or memory >= NOMINAL * size * GIB]
    return tuple(_name(modality, size) for modality in modalities for size in sizes)


def check_pools(names: Sequence[str], modalities: Sequence[str]) -> None:
    """See that there could be such pools.

    Raises:
        UnknownName: with those there are.
    """
    for name in names:
        found = re.fullmatch(r"(.+?)(?:-(\d+)g)?", name)
        if not found or found[1] not in modalities or (found[2] and int(found[2]) not in SIZES[1:]):
            sizes = ", ".join(f"-{size}g" for size in SIZES[1:])
            known = ", ".join(modalities) or "none installed"
            raise UnknownName("pool", name, f"one of {known}; for models that need more memory also with {sizes}")


def _name(modality: str, size: int) -> str:
    return modality if size == SIZES[0] else f"{modality}-{size}g"
