"""The dashboard's spectrogram of a file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from perrin_dashboard.sounds import HEIGHT, spectrogram


def file(sound: np.ndarray, form: str = "WAV", rate: int = 16000) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, format=form)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_a_tone_is_a_line_at_its_height(form: str) -> None:
    rate, hertz = 16000, 440.0
    data = spectrogram(file(0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate), form, rate))
    assert data is not None
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float64)
    assert picture.shape[0] == 2 * HEIGHT
    brightest = picture.mean(1).argmax() / picture.shape[0]
    assert abs(brightest - (1 - np.log(hertz / 60) / np.log(rate / 2 / 60))) < 0.02


def test_what_is_no_sound_is_none_and_silence_is_dark() -> None:
    assert spectrogram(b"RIFF\0\0\0\0WAVE") is None
    data = spectrogram(file(np.zeros(100)))
    assert data is not None
    assert np.asarray(Image.open(io.BytesIO(data))).max() < 10
