"""Spoken digits by espeak-ng: ten words in many voices, pitches and speeds. The program is GPL; what it says is free.

Speech is made where the recipe runs; neither the program nor what it said is shipped.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from perrin.errors import NotInstalled, PerrinError

__all__ = ["DIGITS", "Said", "say", "utterances"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = {
    "en": "british",
    "en-us": "american",
    "en-gb-scotland": "scottish",
    "en-gb-x-rp": "received",
    "en-029": "caribbean",
}
VARIANTS = {
    "": "plain",
    "+f2": "female",
    "+f4": "bright female",
    "+m3": "male",
    "+m7": "deep male",
    "+whisper": "whispering",
}
SPEEDS = {120: "slow", 175: "", 240: "fast"}
PITCHES = (35, 50, 65)

_SYNCHRONOUS, _RATE, _PITCH, _UTF8 = 2, 1, 3, 1


class Said(NamedTuple):
    """One digit: the word, espeak's voice, words a minute, and pitch from 0 to 100."""

    word: str
    voice: str
    variant: str
    speed: int
    pitch: int

    @property
    def caption(self) -> str:
        """Such as: seven, british female voice, fast."""
        kind = VARIANTS[self.variant]
        voice = f"{VOICES[self.voice]} {kind if kind != 'plain' else ''}".strip() + " voice"
        return ", ".join(part for part in (self.word, voice, SPEEDS[self.speed]) if part)


def utterances() -> Iterator[Said]:
    """All of them, always in the same order."""
    for word, voice, variant, speed, pitch in product(DIGITS, VOICES, VARIANTS, SPEEDS, PITCHES):
        yield Said(word, voice, variant, speed, pitch)


class _Espeak:
    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise NotInstalled("spoken digits (`pip install espeakng-loader`)", "train") from None
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0))
        if self.rate <= 0:
            raise PerrinError("espeak-ng does not start: its data are missing")
        self._heard: list[bytes] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def hear(samples: Any, count: int, _events: Any) -> int:
            if samples and count > 0:
                self._heard.append(ctypes.string_at(samples, 2 * count))
            return 0

        self._hear = kind(hear)
        self._library.espeak_SetSynthCallback(self._hear)

    def say(self, said: Said) -> npt.NDArray[np.int16]:
        if self._library.espeak_SetVoiceByName(f"{said.voice}{said.variant}".encode()):
            raise ValueError(f"no voice {said.voice}{said.variant}")
        self._library.espeak_SetParameter(_RATE, said.speed, 0)
        self._library.espeak_SetParameter(_PITCH, said.pitch, 0)
        self._heard.clear()
        text = said.word.encode() + b"\0"
        self._library.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._heard), np.int16)


@lru_cache(maxsize=1)
def _espeak() -> _Espeak:
    return _Espeak()


def say(said: Said, seconds: float, rate: int) -> npt.NDArray[np.float32]:
    """(samples,) of one digit, with silence after it."""
    program = _espeak()
    sound = program.say(said).astype(np.float32) / 32768
    common = int(np.gcd(rate, program.rate))
    sound = resample_poly(sound, rate // common, program.rate // common)[: round(seconds * rate)].astype(np.float32)
    return np.pad(sound, (0, round(seconds * rate) - len(sound)))
