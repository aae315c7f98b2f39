"""A sound that a request begins with: what the model sees of it, what is kept, and the kept samples put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.clip_length import clip_seconds
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin_audio.face import LONGEST, SHORTEST, AudioParameters, spans_of
from perrin_audio.mel import Mel
from perrin_audio.reading import read_sound

__all__ = ["Given", "as_long", "given_of"]

FADE = 0.016
"""Seconds to each side of a border in which one sound fades into the other; on the side that is made anew."""

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Given:
    """A sound to begin with.

    Attributes:
        sound: (samples,) as long as the result, silence where it has ended.
        renew: (samples,) True where it is made anew.
    """

    sound: Sound
    renew: npt.NDArray[np.bool_]

    @property
    def keeps(self) -> bool:
        """Whether any of it is kept as it is."""
        return not bool(self.renew.all())

    def logs(self, mel: Mel, frames: int) -> Tensor:
        """(1, bands, frames) logarithms of its mel spectrogram; silence after its end."""
        padded = np.pad(self.sound, (0, max(0, frames * mel.hop - len(self.sound))))[: frames * mel.hop]
        return mel.log(torch.from_numpy(padded)[None])

    def kept(self, mel: Mel, frames: int) -> Tensor:
        """(1, 1, frames) 1 where all that a frame sees is kept, else 0; what lies after the end is free."""
        free = np.pad(self.renew, (0, max(0, frames * mel.hop - len(self.renew))), constant_values=True)
        side = (mel.window - mel.hop) // 2
        windows = torch.from_numpy(np.pad(free, side, mode="edge")).float().unfold(0, mel.window, mel.hop)
        return (windows.amax(-1) == 0).float()[None, None, :frames]

    def composite(self, made: Sound, rate: int) -> Sound:
        """``made`` where it was to be made anew, this sound's own samples elsewhere."""
        reach = max(1, round(FADE * rate))
        kernel = np.hanning(2 * reach + 1)
        away = np.convolve(np.pad(self.renew.astype(np.float64), reach, mode="edge"), kernel / kernel.sum(), "valid")
        weight = np.where(self.renew, np.clip(2 * away - 1, 0, 1), 0.0).astype(np.float32)
        return np.where(self.renew, self.sound + weight * (made - self.sound), self.sound)


def as_long(p: AudioParameters, inputs: Mapping[str, InputFile]) -> AudioParameters:
    """The request with the seconds of its clip, where it has one.

    Raises:
        InvalidInput: the clip does not say how long it is, or it is too short or too long.
    """
    if "clip" not in inputs:
        return p
    seconds = clip_seconds("clip", inputs["clip"])
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidInput("clip", f"{seconds:.3g} s", f"a clip of {SHORTEST:g} to {LONGEST:g} s")
    return p.model_copy(update={"seconds": seconds})


def given_of(p: AudioParameters, inputs: Mapping[str, InputFile], rate: int) -> Given | None:
    """The sound of a resolved request; None without one.

    Raises:
        InvalidInput: it cannot be read; or a part to renew lies outside of it.
    """
    if "audio" not in inputs:
        return None
    sound = read_sound("audio", inputs["audio"], rate)
    end = len(sound)
    seconds = (end / rate + p.extend) if p.extend is not None else p.seconds if p.seconds is not None else end / rate
    length = round(seconds * rate)
    renew = np.full(length, p.strength != 0)
    if p.renew is not None or p.extend is not None:
        renew[:end] = False
    if p.renew is not None:
        for low, high in spans_of(p.renew):
            if low >= length / rate or low * rate >= end:
                raise InvalidInput("renew", p.renew, f"spans within the sound's {end / rate:.2f} s")
            renew[round(low * rate) : round(high * rate)] = True
    return Given(np.pad(sound, (0, max(0, length - end)))[:length], renew)
