"""Runs image models: a prompt's tokens into a latent diffusion model, its latents into pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Run
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.modality import Format
from perrin.models import ModelCard
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin.nn import Autoencoder
from perrin.nn.text import text_encoder
from perrin_image.face import ImageParameters
from perrin_image.pictures import to_pixels
from perrin_image.png import write_png

__all__ = ["ImageRuntime"]

Pixels = npt.NDArray[np.uint8]


class ImageRuntime:
    """A latent text-to-image model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, codec: Autoencoder, network: torch.nn.Module) -> None:
        self.card, self.device = card, device
        self._codec, self._network = codec, network
        self._process = d.process.from_config(card.process)
        self._denoiser = d.Denoiser(network, self._process, card.prediction)

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is not a latent text-to-image model of this kind, or its files are broken.
        """
        if not {"autoencoder", "transformer"} <= card.architecture.keys():
            got = ", ".join(card.architecture)
            raise ModelError(f"model {card.name}: wanted an autoencoder and a transformer, got {got}")
        text_encoder(device)
        codec = cast(Autoencoder, load_network(card, "autoencoder", device))
        return cls(card, device, codec, load_network(card, "transformer", device))

    def start(self, parameters: ImageParameters) -> Run:
        """Encode the prompt, choose grid, solver and guidance, and draw the starting noise.

        The latent grid follows the picture's size; item i has seed + i.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.size is None or p.sampler is None or p.guidance is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        styles = self.card.conditioners["style"]
        label = torch.tensor([styles.index(p.style or "any")], device=self.device)
        text = text_encoder(self.device)([p.prompt, p.negative])
        condition, null = (
            {"context": text.tokens[i : i + 1], "context_mask": text.mask[i : i + 1], "label": label} for i in (0, 1)
        )
        grid = d.grid.shifted(self._process, p.steps, **{"shift": 1.0, **self.card.grid})
        side = p.size // self._codec.factor
        return d.start(
            d.guidance.classifier_free(self._denoiser, p.guidance, null),
            plan_of(self.card, p.sampler, grid),
            shape=(self._codec.latent, side, side),
            seeds=[p.seed + item for item in range(p.count)],
            condition=condition,
            device=self.device,
        )

    @torch.inference_mode()
    def preview(self, clean: Tensor) -> bytes | None:
        """The first item's clean estimate, decoded: the decoder is small enough to be its own preview."""
        return write_png(to_pixels(self._codec.decode(clean[:1]))[0][..., :3])

    @torch.inference_mode()
    def decode(self, clean: Tensor, parameters: ImageParameters) -> Sequence[Pixels]:
        """uint8 pictures (H, W, 3), colour over white."""
        return [picture[..., :3] for picture in to_pixels(self._codec.decode(clean))]

    def check(self, result: Pixels) -> None:
        """Refuse a picture of one colour."""
        if result.std() < 1.0:
            shown = result.reshape(-1, result.shape[-1]).mean(0).round().astype(int).tolist()
            raise Degenerate(f"the picture is one flat colour, RGB {shown}; try another seed, prompt or less guidance")

    def export(self, results: Sequence[Pixels], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One PNG with its metadata."""
        return write_png(results[0], metadata)
