"""Sounds to look at: spectrograms and waveforms as pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from perrin_audio.mel import Mel

__all__ = ["logs_sheet", "mel_picture", "sound_picture", "spectrogram_sheet"]

_STOPS = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ]
)
"""From dark to light by evenly rising brightness, as spectrograms are mostly drawn."""

QUIET, LOUD = -6.9, 3.5
"""Logarithms of mel magnitudes that are drawn darkest and lightest."""


def mel_picture(logs: Tensor, scale: int = 2) -> npt.NDArray[np.uint8]:
    """(scale * bands, scale * frames, 3) of logarithms (bands, frames), low bands below."""
    level = ((logs.float().cpu().numpy() - QUIET) / (LOUD - QUIET)).clip(0, 1)[::-1]
    place = np.linspace(0, 1, len(_STOPS))
    rgb = np.stack([np.interp(level, place, _STOPS[:, c]) for c in range(3)], -1).round().astype(np.uint8)
    return rgb.repeat(scale, 0).repeat(scale, 1)


def spectrogram_sheet(mel: Mel, sounds: Tensor, columns: int) -> Image.Image:
    """Mel spectrograms of sounds (B, samples), ``columns`` in a row."""
    return logs_sheet(mel.log(sounds), columns)


def logs_sheet(logs: Tensor, columns: int, scale: int = 1) -> Image.Image:
    """Spectrograms (B, bands, frames), ``columns`` in a row."""
    tiles = [np.pad(mel_picture(item, scale), ((2, 2), (2, 2), (0, 0)), constant_values=255) for item in logs]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def sound_picture(mel: Mel, sound: Tensor, height: int = 80) -> Image.Image:
    """A spectrogram above the waveform of one sound (samples,), a frame two pixels wide."""
    logs = mel.log(_long_enough(sound, mel)[None])[0]
    above = mel_picture(logs)
    wide = above.shape[1]
    edges = np.linspace(0, len(sound), wide + 1).astype(int)
    samples = sound.cpu().numpy()
    wave = np.full((height, wide, 3), 255, np.uint8)
    scale = max(1e-6, float(np.abs(samples).max()))
    for column in range(wide):
        part = samples[edges[column] : max(edges[column] + 1, edges[column + 1])] / scale
        top, bottom = ((1 - value) / 2 * (height - 1) for value in (part.max(), part.min()))
        wave[round(top) : round(bottom) + 1, column] = (101, 21, 110)
    return Image.fromarray(np.concatenate([above, wave], 0))


def _long_enough(sound: Tensor, mel: Mel) -> Tensor:
    """At least a window, by silence."""
    return torch.nn.functional.pad(sound, (0, max(0, mel.window - len(sound))))
