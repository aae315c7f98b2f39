"""How each family is told a prompt and asked, by the names of `perrin.models.checkpoints.families`. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from perrin.errors import ModelError
from perrin.models.card import ModelCard
from perrin.models.checkpoints.loading import dtype_for
from perrin.models.checkpoints.measuring import Measured, measure
from perrin.models.checkpoints.pipelines.base import Pipeline
from perrin.models.checkpoints.pipelines.sd import StableDiffusion, StableDiffusionXL
from perrin.models.checkpoints.pipelines.sounds import AudioLDM2, StableAudio
from perrin.models.checkpoints.pipelines.transformers import Flux, PixArt, StableDiffusion3
from perrin.models.checkpoints.pipelines.videos import LTX, AnimateDiff, CogVideoX, Wan
from perrin.models.checkpoints.pipelines.wordless import DiT, Unconditional

__all__ = ["PIPELINES", "Pipeline", "load_pipeline", "measured"]

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


def load_pipeline(card: ModelCard, device: str, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """The checkpoint that ``card`` describes, on a device.

    Args:
        card: of the model.
        device: where it runs.
        dtype: of the networks; what suits the device if None.
        options: ``stream`` and ``measured``, as of `Pipeline`.

    Raises:
        ModelError: its files are broken.
        NotInstalled: diffusers or transformers is missing.
    """
    if card.checkpoint is None or card.checkpoint.family not in PIPELINES:
        raise ModelError(f"model {card.name}: it is no checkpoint of a family that is known")
    return PIPELINES[card.checkpoint.family](card, device, dtype, **options)


def measured(
    card: ModelCard, device: str, size: tuple[int, int], exact: bool, progress: Callable[[str], None]
) -> Measured:
    """Find out how the model runs fastest, and remember it; see `perrin.models.checkpoints.measuring`.

    Args:
        card: of the model.
        device: where it is to run.
        size: width and height in pixels that it is tried at.
        exact: keep the precision of the weights.
        progress: told of each trial.
    """
    own = str(dtype_for(card, device)).removeprefix("torch.")
    others = () if exact else tuple(name for name in ("bfloat16", "float16") if name != own and _has(device, name))

    def load(trial: Measured) -> Any:
        return load_pipeline(card, device, measured=trial)

    return measure(card, device, load, size, (own, *others), progress)


def _has(device: str, dtype: str) -> bool:
    """Whether a device has arithmetic of a precision; a CPU has none in float16."""
    return dtype == "bfloat16" if device == "cpu" else True
