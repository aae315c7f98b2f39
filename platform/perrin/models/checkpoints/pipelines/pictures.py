"""Pictures and latents: what the image families share."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from perrin.models.checkpoints.pipelines.base import Pipeline

__all__ = ["Pictures"]


class Pictures(Pipeline):
    """A pipeline whose samples are latents of pictures, by an autoencoder called ``vae``."""

    @property
    def factor(self) -> int:
        """Pixels, along a side, of one place of a sample."""
        if not hasattr(self, "vae"):
            return 1
        return int(2 ** (len(self.config("vae").get("block_out_channels", (0, 0, 0, 0))) - 1))

    @property
    def channels(self) -> int:
        """Of a sample."""
        return int(self.config(self.family.network).get("in_channels", 4))

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        return self.channels, height // self.factor, width // self.factor

    def _numbers(self) -> tuple[float, float]:
        config = self.config("vae")
        return float(config.get("scaling_factor") or 0.18215), float(config.get("shift_factor") or 0.0)

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """(B, latent, h, w) in float32, the mean of what the autoencoder says, of pictures (B, 3, H, W)."""
        scale, shift = self._numbers()
        found = self.part("vae").encode(x.to(self.device, self.dtype))
        mean = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return cast(Tensor, (mean.float() - shift) * scale)

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, H, W) in float32, one after the other, so that memory stays that of one."""
        scale, shift = self._numbers()
        vae: Any = self.part("vae")
        parts = [vae.decode((one / scale + shift).to(self.dtype), return_dict=False)[0] for one in z.float().split(1)]
        return torch.cat(parts).float()
