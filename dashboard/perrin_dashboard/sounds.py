"""A sound to look at: its spectrogram, drawn from the file itself."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["spectrogram"]

WINDOW, HOP, HEIGHT = 1024, 256, 160
WIDEST = 1200
"""Columns; a longer sound is drawn in steps of more than a hop."""

QUIETEST_DB = -40.0
"""The loudest place of a picture is drawn lightest, unless it is below this."""

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
"""From dark to light by evenly rising brightness."""


def spectrogram(data: bytes) -> bytes | None:
    """A PNG of WAV, FLAC or Ogg: time to the right, the logarithm of frequency upwards; None if unreadable."""
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError):
        return None
    mono = np.pad(samples.mean(1), (0, max(0, WINDOW - len(samples))))
    level = _levels(mono, rate)
    place = np.linspace(0, 1, len(_STOPS))
    rgb = np.stack([np.interp(level, place, _STOPS[:, c]) for c in range(3)], -1).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgb).resize((max(480, rgb.shape[1]), HEIGHT * 2), Image.Resampling.BILINEAR).save(stream, "PNG")
    return stream.getvalue()


def _levels(mono: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """(HEIGHT, columns) in [0, 1], the highest frequency first."""
    hop = max(HOP, -(-len(mono) // WIDEST))
    first = np.arange(0, len(mono) - WINDOW + 1, hop)
    frames = np.stack([mono[at : at + WINDOW] for at in first]) * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) / (WINDOW / 4)
    hertz = np.geomspace(60, rate / 2, HEIGHT)[::-1]
    rows = np.clip(hertz / rate * WINDOW, 0, WINDOW // 2)
    low = rows.astype(int)
    share = rows - low
    high = np.minimum(low + 1, WINDOW // 2)
    picked = power[:, low] * (1 - share) + power[:, high] * share
    decibels = 20 * np.log10(np.maximum(picked, 1e-6)).T
    top = max(float(decibels.max()), QUIETEST_DB)
    level: npt.NDArray[np.float64] = np.clip((decibels - top + 80) / 80, 0, 1)
    return level
