"""Samples a checkpoint in this process, whatever it makes: what a modality's plugin does, without the plugin.

::

    sampler = Sampler(find("my-clips"))
    run = sampler.start("waves at sunset", frames=16, seeds=[7])
    clip = sampler.decode(run.run())        # (1, 3, 16, H, W), about [-1, 1]

References:
    As of `perrin.models.checkpoints.pipelines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import Denoiser, Run
from perrin.errors import InvalidInput
from perrin.models.card import ModelCard
from perrin.models.checkpoints.pipelines import load_pipeline
from perrin.models.checkpoints.pipelines.pictures import Pictures
from perrin.models.checkpoints.pipelines.sounds import Sounds
from perrin.models.checkpoints.pipelines.videos import LTX, Clips
from perrin.models.grids import grid_of
from perrin.models.plans import plan_of

__all__ = ["Sampler"]


class Sampler:
    """A checkpoint of any family, ready to sample.

    Attributes:
        card: of the model.
        pipeline: its parts.
        denoiser: its network, and what it predicts.
    """

    def __init__(self, card: ModelCard, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        self.card = card
        self.pipeline: Any = load_pipeline(card, device, dtype)
        self.process = d.process.from_config(card.process)
        self.denoiser = Denoiser(self.pipeline.network, self.process, card.prediction)

    def start(
        self,
        prompt: str = "",
        negative: str = "",
        *,
        seeds: Sequence[int] = (0,),
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        size: tuple[int, int] = (512, 512),
        frames: int = 16,
        rate: float = 25.0,
        seconds: float = 10.0,
        **options: Any,
    ) -> Run:
        """A run at its first row.

        Args:
            prompt, negative: what to make, and what to steer away from.
            seeds: one for each item.
            steps, guidance, sampler: the card's where they are left out.
            size: width and height in pixels, of pictures and clips.
            frames, rate: of clips; frames a second.
            seconds: of sounds.
            options: of `perrin.diffusion.Run`, such as ``noise`` and ``initial``.

        Raises:
            InvalidInput: a sampler that is not known, or that cannot do so many steps.
        """
        defaults = self.card.defaults
        count = int(defaults["steps"] if steps is None else steps)
        scale = float(defaults["guidance"] if guidance is None else guidance)
        made, pipeline = [dict(words) for words in self.pipeline.words([prompt, negative])], self.pipeline
        tokens = 0
        if isinstance(pipeline, Clips):
            shape = pipeline.clip_shape(*size, frames)
            more = pipeline.of_clip(*size, frames, rate)
            tokens = pipeline.clip_tokens(*size, frames) if isinstance(pipeline, LTX) else 0
        elif isinstance(pipeline, Sounds):
            shape, more = pipeline.sound_shape(seconds), {}
            made = [pipeline.of_sound(words, seconds) for words in made]
        elif isinstance(pipeline, Pictures):
            shape, more = pipeline.shape(*size), pipeline.about(*size, scale)
            tokens = pipeline.tokens(*size)
        else:
            raise InvalidInput("model", self.card.name, "a model of pictures, clips or sounds")
        to, away = ({**words, **more} for words in made)
        name = sampler or defaults["sampler"]
        plan = plan_of(self.card, name, grid_of(self.card, self.process, count, tokens, name))
        guided: Any = self.denoiser
        if scale != 1 and not pipeline.guides_itself and pipeline.family.words:
            guided = d.guidance.classifier_free(self.denoiser, scale, pipeline.away(away))
        options = {"device": pipeline.device, **options}
        return d.start(guided, plan, shape=shape, seeds=seeds, condition=to, **options)

    def decode(self, clean: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) or clips (B, 3, frames, H, W), about [-1, 1]; sounds (B, channels, samples)."""
        made: Tensor = self.pipeline.decode(clean)
        return made
