"""The pitch of a note as a listener's model hears it: torchcrepe's, over the first second and where it is sure.

References:
    Kim et al., CREPE: A Convolutional Representation for Pitch Estimation (2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from perrin.errors import NotInstalled
from perrin_audio.notes import cents

__all__ = ["heard_pitch", "within"]

LOWEST, HIGHEST = 50.0, 2006.0
"""Hz that the network knows."""

SURE = 0.4
"""Frames with less than this share of the surest frame's confidence are left out."""


def heard_pitch(sounds: Tensor, rate: int = 16000, model: str = "full", seconds: float = 1.0) -> list[float]:
    """The median pitch in Hz of each sound (B, samples); NaN for one that is silent."""
    try:
        import torchcrepe
    except ImportError:
        raise NotInstalled("measuring pitch (`pip install torchcrepe`)", "train") from None
    found = []
    for sound in sounds[:, : round(seconds * rate)]:
        if not float(sound.abs().max()) > 0:
            found.append(float("nan"))
            continue
        decoder: Any = torchcrepe.decode.weighted_argmax
        with torch.inference_mode():
            pitch, sure = torchcrepe.predict(
                sound[None] / sound.abs().max(), rate, hop_length=rate // 50, fmin=LOWEST, fmax=HIGHEST, model=model,
                return_periodicity=True, batch_size=256, decoder=decoder,
            )  # fmt: skip
        pitch, sure = pitch[0].numpy(), sure[0].numpy()
        found.append(float(np.median(pitch[sure >= SURE * sure.max()])))
    return found


def within(hertz: float, note: int, tolerance: float = 50.0) -> bool:
    """Whether a pitch is within so many cents of a note, octave included."""
    return bool(np.isfinite(hertz) and hertz > 0 and abs(cents(hertz, note)) <= tolerance)
