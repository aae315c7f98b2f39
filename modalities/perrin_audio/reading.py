"""Sounds that people give: any rate, any number of channels, made what the model knows; or refused in one line."""

from __future__ import annotations

import io
from math import gcd

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from perrin.errors import InvalidInput, NotInstalled
from perrin.inputs import InputFile

__all__ = ["LONGEST", "read_sound"]

LONGEST = 60.0
"""Seconds that are read; the rest of a longer sound is left where it is."""

SHORTEST = 0.02

MOST_CHANNELS = 32

QUIETEST = 1e-4
"""A sound whose peaks stay below it is silence."""

Sound = npt.NDArray[np.float32]


def read_sound(field: str, file: InputFile, rate: int) -> Sound:
    """The first minute of a sound, its channels averaged, at ``rate``: (samples,) within [-1, 1].

    Args:
        field: the parameter's name, for errors.
        file: WAV, FLAC, OGG, MP3 or AIFF.
        rate: samples a second that are wanted.

    Raises:
        InvalidInput: it cannot be read, is silent, has no length, or samples that are not finite.
    """
    try:
        import soundfile
    except ImportError:
        raise NotInstalled("reading sounds", "run") from None
    try:
        with soundfile.SoundFile(io.BytesIO(file.data)) as stream:
            found, channels = stream.samplerate, stream.channels
            if channels > MOST_CHANNELS:
                raise InvalidInput(field, f"a sound of {channels} channels", f"at most {MOST_CHANNELS}")
            samples = stream.read(int(LONGEST * found), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InvalidInput(field, file.media_type, f"a sound that can be read: {error}") from None
    if not np.isfinite(samples).all():
        raise InvalidInput(field, "samples that are not finite", "a sound of finite samples")
    if len(samples) < SHORTEST * found:
        raise InvalidInput(field, f"a sound of {len(samples)} samples", f"at least {SHORTEST:g} s")
    mono = samples.mean(1)
    if np.abs(mono).max() < QUIETEST:
        said = "silence" if np.abs(samples).max() < QUIETEST else "channels that cancel each other"
        raise InvalidInput(field, said, "a sound that can be heard")
    if found != rate:
        common = gcd(found, rate)
        mono = resample_poly(mono, rate // common, found // common)
    found_sound: Sound = (mono / max(1.0, float(np.abs(mono).max()))).astype(np.float32)
    return found_sound
