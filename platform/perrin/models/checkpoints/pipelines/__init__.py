"""How each family is told a prompt and asked, by the names of `perrin.models.checkpoints.families`. Imports torch."""

from __future__ import annotations

from typing import Any

import torch

from perrin.errors import ModelError
from perrin.models.card import ModelCard
from perrin.models.checkpoints.pipelines.base import Pipeline
from perrin.models.checkpoints.pipelines.sd import StableDiffusion, StableDiffusionXL
from perrin.models.checkpoints.pipelines.sounds import AudioLDM2, StableAudio
from perrin.models.checkpoints.pipelines.transformers import Flux, PixArt, StableDiffusion3
from perrin.models.checkpoints.pipelines.videos import LTX, AnimateDiff, CogVideoX, Wan
from perrin.models.checkpoints.pipelines.wordless import DiT, Unconditional

__all__ = ["PIPELINES", "Pipeline", "load_pipeline"]

PIPELINES: dict[str, type[Pipeline]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sdxl-refiner": StableDiffusionXL,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "pixart": PixArt,
    "dit": DiT,
    "ddpm": Unconditional,
    "animatediff": AnimateDiff,
    "cogvideox": CogVideoX,
    "wan": Wan,
    "ltx": LTX,
    "audioldm2": AudioLDM2,
    "stable-audio": StableAudio,
}


def load_pipeline(card: ModelCard, device: str, dtype: torch.dtype | None = None, stream: bool = False) -> Any:
    """The checkpoint that ``card`` describes, on a device; its weights in memory, or streamed from their files.

    Raises:
        ModelError: its files are broken.
        NotInstalled: diffusers or transformers is missing.
    """
    if card.checkpoint is None or card.checkpoint.family not in PIPELINES:
        raise ModelError(f"model {card.name}: it is no checkpoint of a family that is known")
    return PIPELINES[card.checkpoint.family](card, device, dtype, stream)
