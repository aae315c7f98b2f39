"""Plays scores on a SoundFont, and reads recorded hits; 16 kHz, one channel.

The synthesizer runs at twice the rate and is halved with a filter, since its own interpolation lets high partials fold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from perrin.errors import NotInstalled
from perrin_audio.data.score import Score

__all__ = ["RATE", "Player", "read_hit"]

RATE = 16000
OVER = 2

Sound = npt.NDArray[np.float32]


class Player:
    """One SoundFont.

    Args:
        path: of the ``.sf2``.
        rate: of what comes out.
    """

    def __init__(self, path: Path, rate: int = RATE) -> None:
        try:
            import tinysoundfont
        except ImportError as error:
            raise NotInstalled("playing a SoundFont (`pip install --no-deps tinysoundfont`)", "train") from error
        self._rate = rate
        self._synth: Any = tinysoundfont.Synth(gain=0.0, samplerate=rate * OVER)
        self._font = self._synth.sfload(str(path))

    def play(self, score: Score, seconds: float) -> Sound:
        """``seconds`` of it from ``score.start`` on: (samples,)."""
        synth, drums = self._synth, score.program == 128
        channel = 9 if drums else 0
        synth.program_select(channel, self._font, 128 if drums else 0, 0 if drums else score.program, drums)
        end = score.start + seconds
        events = [(key.at, True, key.note) for key in score.keys]
        events += [(key.at + key.seconds, False, key.note) for key in score.keys if key.at + key.seconds < end]
        parts, now = [], 0.0
        for at, presses, note in sorted(events):
            parts.append(self._generate(at - now))
            now = at
            if presses:
                synth.noteon(channel, note, score.velocity)
            else:
                synth.noteoff(channel, note)
        parts.append(self._generate(end - now))
        synth.sounds_off()
        self._generate(0.05)
        whole: Sound = resample_poly(np.concatenate(parts), 1, OVER).astype(np.float32)
        first, count = round(score.start * self._rate), round(seconds * self._rate)
        return whole[first : first + count]

    def _generate(self, seconds: float) -> Sound:
        frames = round(seconds * self._rate * OVER)
        if frames <= 0:
            return np.zeros(0, np.float32)
        made = np.frombuffer(bytes(self._synth.generate(frames)), np.float32)
        mono: Sound = made.reshape(-1, 2).mean(1)
        return mono


def read_hit(path: Path, seconds: float, rate: int = RATE) -> Sound:
    """The beginning of a recorded sound, padded with silence: (samples,)."""
    import soundfile

    data, found = soundfile.read(path, dtype="float32", always_2d=True)
    mono = data[: round((seconds + 0.1) * found)].mean(1)
    up, down = rate // np.gcd(rate, found), found // np.gcd(rate, found)
    sound: Sound = resample_poly(mono, up, down)[: round(seconds * rate)].astype(np.float32)
    return np.pad(sound, (0, round(seconds * rate) - len(sound)))
