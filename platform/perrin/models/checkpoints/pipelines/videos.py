"""Clips: AnimateDiff, CogVideoX, Wan and LTX. A sample is (C, frames, h, w) latents.

What a prompt becomes is asked of the library's own pipeline, which is made of the same parts and samples nothing.

References:
    Guo et al., AnimateDiff (2023); Yang et al., CogVideoX (2024); Wan Team, Wan (2025);
    HaCohen et al., LTX-Video (2024).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perrin.models.checkpoints.loading import quietly
from perrin.models.checkpoints.pipelines.base import Asked, Pipeline, Words

__all__ = ["LTX", "AnimateDiff", "Clips", "CogVideoX", "Wan", "theirs"]

TICKS = 1000.0


def theirs(kind: str, **parts: Any) -> Any:
    """The library's pipeline of these parts, with no scheduler."""
    with quietly():
        return getattr(importlib.import_module("diffusers"), kind)(scheduler=None, **parts)


class Clips(Pipeline):
    """A pipeline of clips.

    Attributes:
        spatial, temporal: pixels and frames to one place of a sample, along an axis; the first frame has its own.
    """

    spatial = 8
    temporal = 4

    @property
    def channels(self) -> int:
        """Of a sample."""
        return int(self.core.config.in_channels)

    core: Any

    def clip_shape(self, width: int, height: int, frames: int) -> tuple[int, ...]:
        """Of one sample for a clip of this size and so many frames."""
        return self.channels, (frames - 1) // self.temporal + 1, height // self.spatial, width // self.spatial

    def of_clip(self, width: int, height: int, frames: int, rate: float) -> dict[str, Tensor]:
        """Conditions of every branch that come from size, frames and frames a second."""
        return {}


class AskedMotion(Asked):
    """A `UNetMotionModel`; every frame hears the prompt."""

    def ask(self, x: Tensor, t: Tensor, context: Tensor) -> Any:
        """(B, 4, frames, h, w), (B,) training steps, (B, L, width)."""
        heard = context.repeat_interleave(x.shape[2], 0)
        return self.network(x, t, encoder_hidden_states=heard, return_dict=False)[0]


class AnimateDiff(Clips):
    """A U-Net for pictures with a motion module between its layers."""

    asked = AskedMotion
    temporal = 1

    def made(self) -> nn.Module:
        kind = importlib.import_module("diffusers").UNetMotionModel
        with quietly():
            made: nn.Module = kind.from_unet2d(self.part("unet"), self.part("motion_adapter"))
        del self.unet, self.motion_adapter
        return made.to(self.device, self.dtype).eval().requires_grad_(False)

    @property
    def spatial(self) -> int:  # type: ignore[override]
        return int(2 ** (len(self.config("vae").get("block_out_channels", (0,) * 4)) - 1))

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard = self.part("text_encoder")(self.ids("tokenizer", texts).input_ids)[0]
        return [{"context": one} for one in heard.split(1)]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, frames, H, W)."""
        scale = float(self.config("vae").get("scaling_factor") or 0.18215)
        flat = z.transpose(1, 2).flatten(0, 1) / scale
        frames = torch.cat([self.part("vae").decode(one.to(self.dtype)).sample for one in flat.split(1)])
        return cast(Tensor, frames.float().unflatten(0, (len(z), -1)).transpose(1, 2))


class AskedCog(Asked):
    """A `CogVideoXTransformer3DModel`, which has frames before channels."""

    rolls = True
    turns: Any = None

    def ask(self, x: Tensor, t: Tensor, context: Tensor) -> Any:
        """(B, C, frames, h, w), (B,) training steps, (B, L, width)."""
        turned = None if self.turns is None else self.turns(x.shape[-2], x.shape[-1], x.shape[2])
        return self.network(
            hidden_states=x.transpose(1, 2), encoder_hidden_states=context, timestep=t, image_rotary_emb=turned,
            return_dict=False,
        )[0].transpose(1, 2)  # fmt: skip


class CogVideoX(Clips):
    """A T5 and one stream of words and places."""

    asked = AskedCog

    def made(self) -> nn.Module:
        self.theirs = theirs(
            "CogVideoXPipeline", tokenizer=self.tokenizers["tokenizer"], text_encoder=self.part("text_encoder"),
            vae=self.part("vae"), transformer=self.part("transformer"),
        )  # fmt: skip
        self.spatial, self.temporal = self.theirs.vae_scale_factor_spatial, self.theirs.vae_scale_factor_temporal
        return super().made()

    def __init__(self, card: Any, device: str, dtype: torch.dtype | None = None, **options: Any) -> None:
        super().__init__(card, device, dtype, **options)
        if self.core.config.use_rotary_positional_embeddings:
            cast(AskedCog, self.network.network).turns = self._turns

    def _turns(self, high: int, wide: int, frames: int) -> Any:
        return self.theirs._prepare_rotary_positional_embeddings(
            high * self.spatial, wide * self.spatial, frames, torch.device(self.device)
        )

    def read(self, texts: Sequence[str]) -> list[Words]:
        length = int(self.core.config.max_text_seq_length)
        heard = self.theirs._get_t5_prompt_embeds(list(texts), max_sequence_length=length, device=self.device)
        return [{"context": one} for one in heard.split(1)]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, frames, H, W)."""
        vae = self.part("vae")
        return cast(Tensor, vae.decode((z / vae.config.scaling_factor).to(self.dtype)).sample.float())


class AskedWan(Asked):
    """A `WanTransformer3DModel`."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, context: Tensor) -> Any:
        """(B, C, frames, h, w), (B,) flow times, (B, L, width)."""
        return self.network(hidden_states=x, timestep=t * TICKS, encoder_hidden_states=context, return_dict=False)[0]


class Wan(Clips):
    """A multilingual T5, zeros after the prompt's end."""

    asked = AskedWan
    SENTENCE = 512

    def made(self) -> nn.Module:
        self.theirs = theirs(
            "WanPipeline", tokenizer=self.tokenizers["tokenizer"], text_encoder=self.part("text_encoder"),
            vae=self.part("vae"), transformer=self.part("transformer"),
        )  # fmt: skip
        self.spatial, self.temporal = self.theirs.vae_scale_factor_spatial, self.theirs.vae_scale_factor_temporal
        return super().made()

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard = self.theirs._get_t5_prompt_embeds(list(texts), max_sequence_length=self.SENTENCE, device=self.device)
        return [{"context": one} for one in heard.split(1)]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, frames, H, W)."""
        vae = self.part("vae")
        mean, spread = (
            torch.tensor(numbers, device=z.device).view(1, -1, 1, 1, 1)
            for numbers in (vae.config.latents_mean, vae.config.latents_std)
        )
        return cast(Tensor, vae.decode((z * spread + mean).to(self.dtype)).sample.float())


class AskedLTX(Asked):
    """An `LTXVideoTransformer3DModel`, which sees every place as one token."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, context: Tensor, context_mask: Tensor, grains: Tensor) -> Any:
        """(B, C, frames, h, w), (B,) flow times, (B, L, width), (B, L), (B, 3) seconds and pixels to a place."""
        _, _, frames, high, wide = x.shape
        answer = self.network(
            hidden_states=x.flatten(2).transpose(1, 2), encoder_hidden_states=context, timestep=t * TICKS,
            encoder_attention_mask=context_mask, num_frames=frames, height=high, width=wide,
            rope_interpolation_scale=tuple(grains[0].tolist()), return_dict=False,
        )[0]  # fmt: skip
        return answer.transpose(1, 2).unflatten(2, (frames, high, wide))


class LTX(Clips):
    """A T5, and latents so small that a clip is made in seconds."""

    asked = AskedLTX

    def made(self) -> nn.Module:
        self.theirs = theirs(
            "LTXPipeline", tokenizer=self.tokenizers["tokenizer"], text_encoder=self.part("text_encoder"),
            vae=self.part("vae"), transformer=self.part("transformer"),
        )  # fmt: skip
        self.spatial = self.theirs.vae_spatial_compression_ratio
        self.temporal = self.theirs.vae_temporal_compression_ratio
        return super().made()

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard, mask = self.theirs._get_t5_prompt_embeds(list(texts), device=self.device)
        return [{"context": c, "context_mask": m} for c, m in zip(heard.split(1), mask.split(1), strict=True)]

    def of_clip(self, width: int, height: int, frames: int, rate: float) -> dict[str, Tensor]:
        grains = (self.temporal / rate, self.spatial, self.spatial)
        return {"grains": torch.tensor([grains], dtype=torch.float64, device=self.device)}

    def clip_tokens(self, width: int, height: int, frames: int) -> int:
        """How many the network sees of a clip."""
        _, *grid = self.clip_shape(width, height, frames)
        return grid[0] * grid[1] * grid[2]

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 3, frames, H, W)."""
        vae = self.part("vae")
        mean, spread = (n.view(1, -1, 1, 1, 1).to(z) for n in (vae.latents_mean, vae.latents_std))
        latents = (z * spread / vae.config.scaling_factor + mean).to(self.dtype)
        told = torch.zeros(len(z), device=z.device, dtype=self.dtype) if vae.config.timestep_conditioning else None
        return cast(Tensor, vae.decode(latents, told, return_dict=False)[0].float())
