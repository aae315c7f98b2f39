"""Networks on a ring: what leaves a grid at one side comes in at the other, so that a result repeats without a seam.

Convolutions take their padding from the other side. With that a network of convolutions, norms and attention without
positions gives, of a grid that was rolled, the result rolled alike (by places that its levels divide), so that no place
is an edge. A transformer has positions, and with them an edge; there the edge is elsewhere at every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from perrin.nn.transformer import DiffusionTransformer
from perrin.nn.unet import ResidualBlock

__all__ = ["Ring", "circular"]

GOLDEN = 0.6180339887498949
"""Its multiples are spread evenly over the places of a grid, whatever the steps."""


@contextmanager
def circular(network: nn.Module) -> Iterator[None]:
    """Inside, ``network`` pads its grids from their other side."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    try:
        for convolution in convolutions:
            convolution.padding_mode = "circular"
        for block in blocks:
            block.circular = True
        yield
    finally:
        for convolution in convolutions:
            convolution.padding_mode = "zeros"
        for block in blocks:
            block.circular = False


class Ring:
    """A network of `perrin.nn` as one on a ring: ``(x, t, **condition)`` as the network takes them.

    Args:
        network: whose grids are to repeat.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._rolls = isinstance(network, DiffusionTransformer)

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """(B, C, *grid) and (B,) to (B, C', *grid)."""
        with circular(self._network):
            if not self._rolls:
                out: Tensor = self._network(x, t, **condition)
                return out
            shifts = [_shift(float(time), x.shape[2:]) for time in t]
            moved = _rolled(x, shifts, lambda side: side)
            return _rolled(self._network(moved, t, **condition), shifts, lambda side: -side)


def _shift(time: float, sides: torch.Size) -> list[int]:
    """How far a grid is rolled along each axis at a time: another place for every time, the same in every run."""
    return [int((time * 1000 * GOLDEN ** (axis + 1)) % 1 * side) for axis, side in enumerate(sides)]


def _rolled(x: Tensor, shifts: list[list[int]], way: Callable[[int], int]) -> Tensor:
    axes = tuple(range(1, x.ndim - 1))
    return torch.stack([part.roll([way(side) for side in own], axes) for part, own in zip(x, shifts, strict=True)])
