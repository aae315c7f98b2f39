"""Sounds as files: WAV, FLAC and OGG with how they were made inside, or a picture of spectrogram and waveform.

The same sounds and metadata give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchaudio.functional import loudness

from perrin.tags import commented
from perrin_audio.ogg import renumbered

__all__ = ["PEAK", "levelled", "loudness_of", "write"]

Sound = npt.NDArray[np.float32]

PEAK = 10 ** (-1 / 20)
"""-1 dB of full scale."""

BLOCK = 0.4
"""Seconds: the measure's blocks; a shorter sound is measured with silence after it."""

SUBTYPES = {
    ("audio/wav", "16"): ("WAV", "PCM_16"),
    ("audio/wav", "24"): ("WAV", "PCM_24"),
    ("audio/wav", "float"): ("WAV", "FLOAT"),
    ("audio/flac", "16"): ("FLAC", "PCM_16"),
    ("audio/flac", "24"): ("FLAC", "PCM_24"),
    ("audio/ogg", "16"): ("OGG", "VORBIS"),
    ("audio/ogg", "24"): ("OGG", "VORBIS"),
}


def loudness_of(sound: Sound, rate: int) -> float:
    """LUFS of a sound (samples,), by ITU-R BS.1770-4; minus infinity for silence."""
    padded = np.pad(sound, (0, max(0, round(BLOCK * rate) + 1 - len(sound))))
    value = float(loudness(torch.from_numpy(padded.astype(np.float32))[None], rate))
    return value if np.isfinite(value) else -np.inf


def levelled(sound: Sound, rate: int, lufs: float) -> Sound:
    """``sound`` at so many LUFS, or as near to it as its peaks allow."""
    now = loudness_of(sound, rate)
    peak = float(np.abs(sound).max())
    if not np.isfinite(now) or peak == 0:
        return sound
    gain = min(10 ** ((lufs - now) / 20), PEAK / peak)
    return (sound * gain).astype(np.float32)


def write(sound: Sound, rate: int, media_type: str, depth: str, metadata: Mapping[str, Any]) -> bytes:
    """One sound (samples,) with its metadata, in the comment that each of these formats has.

    Args:
        sound: within [-1, 1].
        rate: samples a second.
        media_type: of `SUBTYPES`.
        depth: 16, 24 or float.
        metadata: how it was made.
    """
    import soundfile

    form, subtype = SUBTYPES[media_type, depth]
    comment = json.dumps({"perrin": metadata}, sort_keys=True, ensure_ascii=True)
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", rate, 1, subtype, format=form) as file:
        if form != "WAV":  # of a long comment in a WAV file libsndfile loses the end
            file.comment = comment
        file.write(sound)
    data = stream.getvalue()
    if form == "WAV":
        return commented(_timeless(data), comment)
    return renumbered(data) if form == "OGG" else data


def _timeless(wav: bytes) -> bytes:
    """Without the time of day that the PEAK chunk of a file of floats has."""
    at = wav.find(b"PEAK", 0, 200)
    return wav if at < 0 else wav[: at + 12] + bytes(4) + wav[at + 16 :]
