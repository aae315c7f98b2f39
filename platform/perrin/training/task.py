"""What a plugin brings so that the trainer can train it: data, a loss, a look at the result, and files to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from perrin.modality import Progress

__all__ = ["Task"]


class Task(Protocol):
    """One stage of a recipe.

    A task may have an attribute ``weights``: the stem of the file that `publish` writes the network to, if that is not
    the stage's name.

    Everything random comes from the generators handed in, which depend on (seed, step) alone; so a run that was
    killed and resumed is the same run.
    """

    network: nn.Module

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        """Set up from the recipe.

        Args:
            options: the stage's options.
            data: the recipe's data section.
            folders: ``data`` (a cache shared by runs), ``out`` (this stage's own) and ``model`` (what earlier stages
                published).
        """
        ...

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack the data, once."""
        ...

    def batch(self, size: int, generator: np.random.Generator) -> Any:
        """A batch on the CPU; the loop puts it on the network's device."""
        ...

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a scalar, and numbers to log."""
        ...

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """Measure the averaged ``network``, on the CPU; draw what it makes into the PNG at ``path``."""
        ...

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the weights to ship, which lie on the CPU, into ``folder``; return what the card says of this stage."""
        ...
