"""Other people's checkpoints as image models: behind the same seams as the models of this package.

A pipeline (`perrin.models.checkpoints.pipelines`) has the parts. Here it becomes a codec, and what stands beside the
network: the prompt as its own encoders hear it, and the adapters of its family.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.diffusion import Denoiser
from perrin.diffusion.process import Process
from perrin.inputs import InputFile
from perrin.models import ModelCard
from perrin.models.checkpoints.pipelines import load_pipeline
from perrin.models.checkpoints.pipelines.pictures import Pictures
from perrin.nn.circular import circular
from perrin_image.beside import Condition, Told
from perrin_image.face import ImageParameters
from perrin_image.pictures import CHANNELS
from perrin_image.sizes import Layout

__all__ = ["BesideCheckpoint", "Coded"]

PREVIEW = 24
"""Places of a latent, along its longer side, that a preview is decoded from."""

KEPT = 16

Kept = TypeVar("Kept")


class Coded(nn.Module):
    """A pipeline's autoencoder as a codec.

    Attributes:
        factor, latent: as of `perrin_image.codecs.Plain`.
    """

    def __init__(self, pipeline: Pictures) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.factor, self.latent = pipeline.factor, pipeline.channels

    def encode(self, x: Tensor) -> Tensor:
        """Samples of pictures (B, 4, H, W) in [-1, 1]."""
        return self.pipeline.encode(x[:, :3])

    def decode(self, z: Tensor, ring: bool = False) -> Tensor:
        """Pictures (B, 4, H, W), about [-1, 1]."""
        if ring:
            with circular(self.pipeline.part("vae")):
                return _whole(self.pipeline.decode(z))
        return _whole(self.pipeline.decode(z))

    def preview(self, z: Tensor) -> Tensor:
        """About what `decode` gives, smaller: of so few places that it costs little."""
        part = min(1.0, PREVIEW / max(z.shape[2:]))
        small = F.interpolate(z.float(), scale_factor=part, mode="area") if part < 1 and self.factor > 1 else z
        return self.decode(small)


def _whole(x: Tensor) -> Tensor:
    return x if x.shape[1] == CHANNELS else torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


class BesideCheckpoint:
    """The network of a checkpoint, alone or with an adapter beside it; as `perrin_image.beside.Beside`.

    Attributes:
        denoiser: of the network; requests with no control share it.
        network: the network itself.
    """

    def __init__(self, pipeline: Pictures, process: Process, card: ModelCard) -> None:
        self._pipeline, self._card = pipeline, card
        self._options: dict[str, Any] = {"process": process, "prediction": card.prediction}
        self.network: nn.Module = pipeline.network
        self.denoiser = Denoiser(pipeline.network, **self._options)
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()

    @classmethod
    def load(cls, card: ModelCard, device: str, process: Process) -> tuple[BesideCheckpoint, Coded]:
        """The checkpoint that ``card`` describes, and its codec."""
        pipeline = load_pipeline(card, device)
        return cls(pipeline, process, card), Coded(pipeline)

    def told(self, p: ImageParameters, card: ModelCard, inputs: Mapping[str, InputFile], layout: Layout) -> Told:
        """As of `perrin_image.beside.Beside`."""
        width, height = layout.sampled
        return Told(self.denoiser, self._pipeline.about(width, height, cast(float, p.guidance)), None)

    def spoken(self, texts: Sequence[str], told: Told, p: ImageParameters) -> list[Condition]:
        """As of `perrin_image.beside.Beside`."""
        return [{**words, **told.more} for words in self._pipeline.words(texts)]

    def scale(self, guidance: float) -> float:
        """As of `perrin_image.beside.Beside`: 1 where the network itself is told the scale."""
        return 1.0 if self._pipeline.embeds_guidance else guidance

    def tokens(self, sides: tuple[int, int]) -> int:
        """As of `perrin_image.beside.Beside`."""
        return self._pipeline.tokens(*sides)

    def _once(self, kind: str, card: ModelCard, make: Callable[[ModelCard], Kept]) -> Kept:
        key = (kind, card.sha256)
        if key not in self._kept:
            self._kept[key] = make(card)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        found: Kept = self._kept[key]
        return found
