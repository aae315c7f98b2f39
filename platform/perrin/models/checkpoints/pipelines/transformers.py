"""Pictures by transformers that hear sentences: Stable Diffusion 3, Flux, PixArt.

References:
    Esser et al., Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (2024), section 4;
    Chen et al., PixArt-alpha (2023), section 2.3; Black Forest Labs, FLUX.1 (2024), code and model cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perrin.models.checkpoints.pipelines.base import Asked, Words
from perrin.models.checkpoints.pipelines.pictures import Pictures

__all__ = ["Flux", "PixArt", "StableDiffusion3"]

TICKS = 1000.0
"""Times of a flow, 0 to 1, as these networks count them."""

SENTENCE = 256
"""Tokens of a sentence that Stable Diffusion 3 hears."""


class AskedSD3(Asked):
    """An `SD3Transformer2DModel`."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor) -> Any:
        """(B, 16, h, w), (B,) flow times, (B, L, width), (B, width)."""
        return self.network(
            hidden_states=x, timestep=t * TICKS, encoder_hidden_states=context, pooled_projections=pooled,
            return_dict=False,
        )[0]  # fmt: skip


class StableDiffusion3(Pictures):
    """Two CLIPs, side by side in their channels, and then a T5, where there is one."""

    asked = AskedSD3

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard, pooled = [], []
        for name in ("text_encoder", "text_encoder_2"):
            ids = self.ids("tokenizer" + name.removeprefix("text_encoder"), texts).input_ids
            said = self.part(name)(ids, output_hidden_states=True)
            heard.append(said.hidden_states[-2])
            pooled.append(said[0])
        width = int(self.config("transformer").get("joint_attention_dim", 4096))
        clip = torch.cat(heard, -1)
        clip = torch.nn.functional.pad(clip, (0, width - clip.shape[-1]))
        if hasattr(self, "text_encoder_3"):
            ids = self.ids("tokenizer_3", texts, SENTENCE).input_ids
            sentence = self.part("text_encoder_3")(ids)[0]
        else:
            sentence = clip.new_zeros(len(texts), SENTENCE, width)
        context, summary = torch.cat([clip, sentence], 1), torch.cat(pooled, -1)
        return [{"context": c, "pooled": p} for c, p in zip(context.split(1), summary.split(1), strict=True)]

    def tokens(self, width: int, height: int) -> int:
        patch = int(self.config("transformer").get("patch_size", 2)) * self.factor
        return (width // patch) * (height // patch)


class AskedFlux(Asked):
    """A `FluxTransformer2DModel`, which sees two by two places as one token."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Any:
        """(B, 16, h, w), (B,) flow times, (B, L, width), (B, width), (B,) the scale where it is told."""
        batch, channels, high, wide = x.shape
        packed = x.reshape(batch, channels, high // 2, 2, wide // 2, 2).permute(0, 2, 4, 1, 3, 5)
        packed = packed.reshape(batch, (high // 2) * (wide // 2), channels * 4)
        places = torch.zeros(high // 2, wide // 2, 3, device=x.device, dtype=x.dtype)
        places[..., 1] += torch.arange(high // 2, device=x.device)[:, None]
        places[..., 2] += torch.arange(wide // 2, device=x.device)[None]
        answer = self.network(
            hidden_states=packed, timestep=t, guidance=guidance, pooled_projections=pooled,
            encoder_hidden_states=context, txt_ids=places.new_zeros(context.shape[1], 3),
            img_ids=places.reshape(-1, 3), return_dict=False,
        )[0]  # fmt: skip
        out = answer.reshape(batch, high // 2, wide // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return out.reshape(batch, channels, high, wide)


class Flux(Pictures):
    """A CLIP for the whole, a T5 for the words."""

    asked = AskedFlux
    core: Any

    @property
    def channels(self) -> int:
        return int(self.config("transformer").get("in_channels", 64)) // 4

    @property
    def guides_itself(self) -> bool:
        return True

    @property
    def _told(self) -> bool:
        """The network is told the scale of guidance; one that is not was distilled without."""
        return bool(self.config("transformer").get("guidance_embeds"))

    @property
    def sentence(self) -> int:
        """Tokens that are heard: half as many by the model that is told no guidance."""
        return 512 if self._told else 256

    def read(self, texts: Sequence[str]) -> list[Words]:
        pooled = self.part("text_encoder")(self.ids("tokenizer", texts).input_ids).pooler_output
        context = self.part("text_encoder_2")(self.ids("tokenizer_2", texts, self.sentence).input_ids)[0]
        return [{"context": c, "pooled": p} for c, p in zip(context.split(1), pooled.split(1), strict=True)]

    def about(self, width: int, height: int, guidance: float) -> dict[str, Tensor]:
        return {"guidance": torch.tensor([guidance], device=self.device)} if self._told else {}

    def tokens(self, width: int, height: int) -> int:
        return (width // self.factor // 2) * (height // self.factor // 2)


class AskedPixArt(Asked):
    """A `PixArtTransformer2DModel`; a learnt variance is left out."""

    rolls = True

    def ask(
        self, x: Tensor, t: Tensor, context: Tensor, context_mask: Tensor, size: Tensor | None = None,
        ratio: Tensor | None = None,
    ) -> Any:  # fmt: skip
        """(B, 4, h, w), (B,) training steps, (B, L, width), (B, L), (B, 2) pixels, (B, 1) height by width."""
        return self.network(
            x, encoder_hidden_states=context, encoder_attention_mask=context_mask, timestep=t,
            added_cond_kwargs={"resolution": size, "aspect_ratio": ratio}, return_dict=False,
        )[0][:, : x.shape[1]]  # fmt: skip


class PixArt(Pictures):
    """A T5 that hears lower case."""

    asked = AskedPixArt

    @property
    def sentence(self) -> int:
        """Tokens that are heard: the later version hears more, and is told no sizes."""
        return 120 if self._told_sizes or self.config("transformer").get("interpolation_scale") is None else 300

    @property
    def _told_sizes(self) -> bool:
        return bool(self.core.use_additional_conditions)

    core: Any

    def read(self, texts: Sequence[str]) -> list[Words]:
        given = self.ids("tokenizer", [text.lower().strip() for text in texts], self.sentence)
        heard = self.part("text_encoder")(given.input_ids, attention_mask=given.attention_mask)[0]
        return [
            {"context": c, "context_mask": m}
            for c, m in zip(heard.split(1), given.attention_mask.split(1), strict=True)
        ]

    def about(self, width: int, height: int, guidance: float) -> dict[str, Tensor]:
        if not self._told_sizes:
            return {}
        told = torch.tensor([[height, width]], dtype=torch.float32, device=self.device)
        return {"size": told, "ratio": told[:, :1] / told[:, 1:]}
