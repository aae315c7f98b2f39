"""Stable Diffusion 1 and 2, XL and its refiner: a U-Net that hears CLIP.

References:
    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models (2022), section 3.3;
    Podell et al., SDXL (2023), section 2, for the second encoder and the sizes that it is told;
    Luo et al., Latent Consistency Models (2023), section 4.2, for guidance as an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perrin.models.checkpoints.pipelines.base import Adapters, Asked, Words
from perrin.models.checkpoints.pipelines.pictures import Pictures

__all__ = ["StableDiffusion", "StableDiffusionXL"]

GUIDANCE_WIDTH = 1000.0
"""Scales of guidance are embedded as sinusoids of so many times their distance from 1."""


BEAUTIFUL, UGLY = 6.0, 2.5
"""Scores that a refiner is told, of 10."""


class AskedUNet(Asked):
    """A `UNet2DConditionModel`; what side networks add to its blocks comes as conditions ``down.N`` and ``mid``."""

    def ask(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
        guidance: Tensor | None = None,
        inside: Tensor | None = None,
        pictures: Tensor | None = None,
        down: Sequence[Tensor] | None = None,
        mid: Tensor | None = None,
    ) -> Any:
        """One evaluation.

        Args:
            x: (B, 4, h, w).
            t: (B,) training steps.
            context: (B, L, width) the prompt.
            pooled: (B, width) the prompt as one vector.
            sizes: (B, 6) original size, corner and size; of a refiner (B, 5), with a score for beauty.
            guidance: (B,) the scale, of a network that is told it.
            inside: (B, 5, h, w) mask and masked picture, of a network that paints inside.
            pictures: (B, 1, N, width) what pictures say beside the prompt.
            down, mid: what a side network adds.
        """
        added: dict[str, Any] = {}
        if pooled is not None and sizes is not None:
            added = {"text_embeds": pooled, "time_ids": sizes}
        if pictures is not None:
            added["image_embeds"] = [pictures]
        told = None if guidance is None else embedded(guidance, int(self.network.config.time_cond_proj_dim), x.dtype)
        return self.network(
            x if inside is None else torch.cat([x, inside], 1), t, encoder_hidden_states=context, timestep_cond=told,
            added_cond_kwargs=added or None, down_block_additional_residuals=None if down is None else tuple(down),
            mid_block_additional_residual=mid, return_dict=False,
        )[0]  # fmt: skip


def embedded(guidance: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """(B, width) sinusoids of the scales (B,)."""
    w = (guidance.double() - 1) * GUIDANCE_WIDTH
    half = width // 2
    rates = torch.exp(
        torch.arange(half, device=w.device, dtype=torch.float64) * (-torch.log(torch.tensor(1e4)) / (half - 1))
    )
    angles = w[:, None] * rates[None]
    out = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.nn.functional.pad(out, (0, width - 2 * half)).to(dtype)


def _nothing(words: Words) -> Words:
    return {name: torch.zeros_like(value) for name, value in words.items()}


class StableDiffusion(Pictures):
    """Versions 1 and 2, which hear one encoder's last layer."""

    asked = AskedUNet

    @property
    def channels(self) -> int:
        return int(self.config("vae").get("latent_channels", 4))

    @property
    def guides_itself(self) -> bool:
        return self.config("unet").get("time_cond_proj_dim") is not None

    @property
    def paints_inside(self) -> bool:
        """The network is told the mask and the picture around it."""
        return int(self.config("unet").get("in_channels", 4)) == 2 * self.channels + 1

    def read(self, texts: Sequence[str]) -> list[Words]:
        given = self.ids("tokenizer", texts)
        mask = given.attention_mask if self.config("text_encoder").get("use_attention_mask") else None
        heard = self.part("text_encoder")(given.input_ids, attention_mask=mask)[0]
        return [{"context": one} for one in heard.split(1)]

    def about(self, width: int, height: int, guidance: float) -> dict[str, Tensor]:
        return {"guidance": torch.tensor([guidance], device=self.device)} if self.guides_itself else {}


class StableDiffusionXL(StableDiffusion):
    """XL, which hears the last layer but one of one or two encoders, and the second one's summary."""

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard, pooled = [], None
        for name in ("text_encoder", "text_encoder_2"):
            if hasattr(self, name):
                ids = self.ids("tokenizer" + name.removeprefix("text_encoder"), texts).input_ids
                said = self.part(name)(ids, output_hidden_states=True)
                heard.append(said.hidden_states[-2])
                pooled = said[0]
        assert pooled is not None
        context = torch.cat(heard, -1)
        return [{"context": c, "pooled": p} for c, p in zip(context.split(1), pooled.split(1), strict=True)]

    def words(self, texts: Sequence[str], adapters: Adapters | None = None, key: str = "") -> list[Words]:
        """As of any pipeline; nothing said is zeros where the model was trained so."""
        made = super().words(texts, adapters, key)
        if not self.options.get("force_zeros_for_empty_prompt", True):
            return made
        return [w if text else _nothing(w) for w, text in zip(made, texts, strict=True)]

    def away(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is steered away from has a low score for beauty, where the network is told one."""
        if not self.options.get("requires_aesthetics_score"):
            return dict(condition)
        sizes = condition["sizes"].clone()
        sizes[:, 4] = UGLY
        return {**condition, "sizes": sizes}

    def about(self, width: int, height: int, guidance: float) -> dict[str, Tensor]:
        scored = bool(self.options.get("requires_aesthetics_score"))
        numbers = (height, width, 0, 0, BEAUTIFUL) if scored else (height, width, 0, 0, height, width)
        told = torch.tensor([numbers], dtype=torch.float32, device=self.device)
        return {"sizes": told, **super().about(width, height, guidance)}
