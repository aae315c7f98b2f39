"""Pictures without a prompt: classes (DiT), and nothing at all (DDPM).

References:
    Peebles and Xie, Scalable Diffusion Models with Transformers (2023), section 3.2;
    Ho et al., Denoising Diffusion Probabilistic Models (2020), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from perrin.models.checkpoints.pipelines.base import Asked, Words
from perrin.models.checkpoints.pipelines.pictures import Pictures

__all__ = ["DiT", "Unconditional"]


class AskedDiT(Asked):
    """A `DiTTransformer2DModel`, told the number of a class; a learnt variance is left out."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, label: Tensor) -> Any:
        """(B, 4, h, w), (B,) training steps, (B,) classes."""
        return self.network(x, timestep=t, class_labels=label, return_dict=False)[0][:, : x.shape[1]]


class DiT(Pictures):
    """Latents of pictures of a class."""

    asked = AskedDiT

    def read(self, texts: Sequence[str]) -> list[Words]:
        return [{} for _ in texts]


class AskedUnconditional(Asked):
    """A `UNet2DModel`."""

    def ask(self, x: Tensor, t: Tensor) -> Any:
        """(B, C, h, w), (B,) training steps."""
        return self.network(x, t, return_dict=False)[0]


class Unconditional(Pictures):
    """Pictures themselves."""

    asked = AskedUnconditional

    def read(self, texts: Sequence[str]) -> list[Words]:
        return [{} for _ in texts]

    def encode(self, x: Tensor) -> Tensor:
        return x[:, : self.channels].to(self.device)

    def decode(self, z: Tensor) -> Tensor:
        return z if z.shape[1] >= 3 else z[:, :1].expand(-1, 3, -1, -1)
