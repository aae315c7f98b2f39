"""Sounds: AudioLDM 2 and Stable Audio Open.

References:
    Liu et al., AudioLDM 2 (2023), section 3; Evans et al., Stable Audio Open (2024), section 3.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perrin.models.checkpoints.loading import quietly
from perrin.models.checkpoints.pipelines.base import Asked, Pipeline, Words
from perrin.models.checkpoints.pipelines.videos import theirs

__all__ = ["AudioLDM2", "Sounds", "StableAudio"]


HEARD = 8
"""Vectors that the language model of AudioLDM 2 makes of a prompt."""


class Sounds(Pipeline):
    """A pipeline of sounds.

    Attributes:
        rate: samples a second.
    """

    rate = 16000
    core: Any

    def sound_shape(self, seconds: float) -> tuple[int, ...]:
        """Of one sample for a sound of this length."""
        raise NotImplementedError

    def of_sound(self, words: Words, seconds: float) -> Words:
        """The condition of a text for a sound of this length."""
        return words


class AskedAudioLDM2(Asked):
    """An `AudioLDM2UNet2DConditionModel`, which hears two readings of the prompt."""

    def ask(self, x: Tensor, t: Tensor, context: Tensor, sentence: Tensor, sentence_mask: Tensor) -> Any:
        """(B, 8, frames, mels), (B,) training steps, (B, 8, width), (B, L, width), (B, L)."""
        return self.network(
            x, t, encoder_hidden_states=context, encoder_hidden_states_1=sentence,
            encoder_attention_mask_1=sentence_mask, return_dict=False,
        )[0]  # fmt: skip


class AudioLDM2(Sounds):
    """Latents of a mel spectrogram, of a prompt that CLAP, T5 and a language model have read."""

    asked = AskedAudioLDM2

    def made(self) -> nn.Module:
        self.theirs = theirs(
            "AudioLDM2Pipeline", feature_extractor=None, **self.tokenizers,
            **{name: self.part(name) for name in self.family.parts},
        )  # fmt: skip
        self.rate = int(self.theirs.vocoder.config.sampling_rate)
        return super().made()

    def read(self, texts: Sequence[str]) -> list[Words]:
        with quietly():
            sentence, mask, context = self.theirs.encode_prompt(
                list(texts), self.device, 1, False, max_new_tokens=HEARD
            )
        rows = zip(context.split(1), sentence.split(1), mask.split(1), strict=True)
        return [{"context": c, "sentence": s, "sentence_mask": m} for c, s, m in rows]

    def sound_shape(self, seconds: float) -> tuple[int, ...]:
        vocoder, factor = self.theirs.vocoder.config, self.theirs.vae_scale_factor
        hop = float(torch.tensor(vocoder.upsample_rates).prod()) / self.rate
        frames = int(seconds / hop)
        frames = -(-frames // factor) * factor
        return int(self.core.config.in_channels), frames // factor, int(vocoder.model_in_dim) // factor

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 1, samples), about [-1, 1]."""
        vae = self.part("vae")
        mel = vae.decode((z / vae.config.scaling_factor).to(self.dtype)).sample
        return cast(Tensor, self.theirs.mel_spectrogram_to_waveform(mel)[:, None].float())


class AskedStableAudio(Asked):
    """A `StableAudioDiTModel`, told words and seconds."""

    rolls = True

    def ask(self, x: Tensor, t: Tensor, context: Tensor, lasts: Tensor) -> Any:
        """(B, 64, places), (B,) times, (B, L, width), (B, 1, 2 width)."""
        turn = importlib.import_module("diffusers.models.embeddings").get_1d_rotary_pos_embed
        turned = turn(
            self.network.config.attention_head_dim // 2, x.shape[2] + lasts.shape[1], use_real=True,
            repeat_interleave_real=False,
        )  # fmt: skip
        return self.network(
            x, t, encoder_hidden_states=context, global_hidden_states=lasts, rotary_embedding=turned, return_dict=False
        )[0]


class StableAudio(Sounds):
    """Latents of a waveform; nothing said is zeros."""

    asked = AskedStableAudio

    def made(self) -> nn.Module:
        self.theirs = theirs(
            "StableAudioPipeline", **self.tokenizers, **{name: self.part(name) for name in self.family.parts}
        )
        self.rate = int(self.part("vae").config.sampling_rate)
        return super().made()

    def read(self, texts: Sequence[str]) -> list[Words]:
        heard = self.theirs.encode_prompt(list(texts), self.device, False)
        return [{"context": c if text else torch.zeros_like(c)} for c, text in zip(heard.split(1), texts, strict=True)]

    @torch.inference_mode()
    def of_sound(self, words: Words, seconds: float) -> Words:
        begin, end = self.theirs.encode_duration(0.0, seconds, self.device, False, 1)
        quiet = bool((words["context"] == 0).all())
        said = [words["context"], *(torch.zeros_like(part) if quiet else part for part in (begin, end))]
        return {"context": torch.cat(said, 1), "lasts": torch.cat([begin, end], 2)}

    def sound_shape(self, seconds: float) -> tuple[int, ...]:
        return int(self.core.config.in_channels), int(self.core.config.sample_size)

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        """(B, 2, samples), about [-1, 1]."""
        return cast(Tensor, self.part("vae").decode(z.to(self.dtype)).sample.float())
