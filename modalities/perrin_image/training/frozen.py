"""A text-to-image model that is not trained, and something beside it that is.

Its networks, latents and captions are those that `perrin_image.training.diffusion` trains with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.errors import ModelError
from perrin.modality import Progress
from perrin.models import ModelCard, find
from perrin.models.weights import load_network
from perrin.nn import DiffusionTransformer
from perrin_image.training.dataset import Pictures
from perrin_image.training.diffusion import Batch, DiffusionTask

__all__ = ["Frozen"]


class Frozen:
    """The model that ``options["base"]`` names.

    Attributes:
        card: the model's card.
        network: its transformer, frozen.
        task: what it was trained by; has latents, captions and the codec once prepared.
        process: its forward process.
        grid: latents to a side of its picture.

    Raises:
        ModelError: it is no latent text-to-image model.
    """

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.card: ModelCard = find(str(options.get("base", "emoji-64")), "image")
        if not {"autoencoder", "transformer"} <= self.card.architecture.keys():
            raise ModelError(f"base {self.card.name}: wanted an autoencoder and a transformer")
        parts = {name: dict(self.card.architecture[name]) for name in ("autoencoder", "transformer")}
        for part in parts.values():
            part.pop("kind")
        codec, inner = parts["autoencoder"], parts["transformer"]
        inner.pop("classes", None)
        told = {"autoencoder": codec, "network": inner, "mirror": 0.0, **options}
        self.task = DiffusionTask(told, data, {**folders, "model": self.card.folder})
        network = load_network(self.card, "transformer")
        assert isinstance(network, DiffusionTransformer)
        self.network = network
        self.process = d.process.from_config(self.card.process)
        halvings = len(codec["widths"]) - 1
        self.grid = self.card.sizes[0][0] // (codec.get("patch", 1) * 2**halvings)

    def prepare(self, progress: Progress) -> Pictures:
        """Fetch, pack and encode; the pictures."""
        self.task.prepare(progress)
        return self.task.pictures

    def loss(
        self, network: nn.Module, batch: Batch, more: Mapping[str, Any], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's, of a network that is told ``more``."""
        condition = {"context": batch.tokens, "context_mask": batch.mask, "label": batch.label, **more}
        return self.task.objective_loss(network, batch.latents, condition, generator)

    def facts(self) -> dict[str, Any]:
        """What the card of something beside this model says of base, data and attributions."""
        return {"base": self.card.name, "sizes": [list(size) for size in self.card.sizes], **self.task.facts()}
