"""Ways to train less than a whole network from nothing: tasks around a task.

`Tuned` starts from a model that exists. `AdapterTask` trains low-rank adapters of it, `WordTask` a new word for it, and
`HeldTask` all of it while holding on to what old data need.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from perrin.errors import ModelError
from perrin.modality import Progress
from perrin.models.card import ModelCard
from perrin.training.adapters import AdapterOptions, inject, save_adapter
from perrin.training.elastic import Anchor, ElasticOptions
from perrin.training.inversion import InversionOptions, Inverted, save_word
from perrin.training.loop import placed
from perrin.training.task import Task

__all__ = ["AdapterTask", "HeldTask", "Tuned", "WordTask"]


class Tuned:
    """``task``, whose network begins with the weights of a model."""

    def __init__(self, task: Task, base: ModelCard, weights: str) -> None:
        """Read ``weights`` (a file's stem) of ``base`` into the task's network.

        Raises:
            ModelError: the model has no such network, or one of another shape.
        """
        self.task, self.base = task, base
        name = f"{weights}.safetensors"
        if name not in base.files:
            raise ModelError(f"model {base.name} has no {name} to start from; it has {', '.join(base.files)}")
        try:
            task.network.load_state_dict({key: value.float() for key, value in load(base.read(name)).items()})
        except RuntimeError as error:
            raise ModelError(f"model {base.name}: {name} does not fit the recipe's network: {error}") from None
        self.network: nn.Module = task.network

    def prepare(self, progress: Progress) -> None:
        """As the task."""
        self.task.prepare(progress)

    def batch(self, size: int, generator: np.random.Generator) -> Any:
        """As the task."""
        return self.task.batch(size, generator)

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """As the task."""
        return self.task.loss(network, batch, generator)

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """As the task."""
        return self.task.evaluate(network, path)

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """As the task."""
        return self.task.publish(network, folder)

    def _facts(self, network: nn.Module) -> dict[str, Any]:
        """What the task's card would say of the data; its weights are not kept."""
        with TemporaryDirectory() as aside:
            said = self.task.publish(network, Path(aside))
        return {"base": self.base.name, **{key: said[key] for key in ("data", "attributions") if key in said}}


class AdapterTask(Tuned):
    """Trains adapters beside the base's frozen weights; publishes them alone."""

    def __init__(self, task: Task, base: ModelCard, weights: str, options: AdapterOptions) -> None:
        super().__init__(task, base, weights)
        self.layers = inject(self.network, options)

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write ``adapter.safetensors``."""
        save_adapter(network, folder / "adapter.safetensors")
        return self._facts(network)


class WordTask(Tuned):
    """Trains the vectors of a new word; publishes them alone."""

    def __init__(self, task: Task, base: ModelCard, weights: str, options: InversionOptions, start: Tensor) -> None:
        super().__init__(task, base, weights)
        self.network = Inverted(self.network, start)
        self._word = options.word

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write ``word.safetensors``."""
        save_word(cast(Inverted, network), self._word, folder / "word.safetensors")
        return self._facts(network)


class HeldTask(Tuned):
    """Trains the whole network on new data; a penalty holds what ``old`` depends on. Both losses are told.

    Args:
        task: of the new data.
        base, weights: where the network begins.
        old: the same task with the old data.
        options: how firmly.
        size: of the batches that the old data's loss is measured on.
    """

    def __init__(
        self, task: Task, base: ModelCard, weights: str, old: Task, options: ElasticOptions, size: int
    ) -> None:
        super().__init__(task, base, weights)
        self._old, self._options, self._size = old, options, size
        self._anchor: Anchor | None = None

    def prepare(self, progress: Progress) -> None:
        """Prepare both data, and measure what the old one depends on."""
        self.task.prepare(progress)
        self._old.prepare(progress)
        self._anchor = Anchor(self.network, lambda number: self._old_loss(self.network, number), self._options)

    def loss(self, network: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The new loss and the penalty."""
        assert self._anchor is not None
        new, numbers = self.task.loss(network, batch, generator)
        penalty = self._anchor.penalty()
        return new + penalty, {**numbers, "new_loss": new.detach(), "penalty": penalty.detach()}

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """As the task, and the old data's loss."""
        measured = self.task.evaluate(network, path)
        with torch.no_grad():
            old = [float(self._old_loss(network, 1_000_000 + number)) for number in range(8)]
        return {**measured, "old_loss": sum(old) / len(old)}

    def _old_loss(self, network: nn.Module, number: int) -> Tensor:
        device = next(network.parameters()).device
        batch = placed(self._old.batch(self._size, np.random.default_rng([7, number])), device)
        return self._old.loss(network, batch, torch.Generator().manual_seed(number))[0]
