"""The sound of a clip: read from whatever FFmpeg opens, and encoded beside the pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput
from perrin.inputs import InputFile

__all__ = ["RATE", "Track", "encoded", "read_track"]

RATE = 48000
"""Samples a second, of two channels; the one rate that Opus has, and AAC has too."""

BITS = 160_000
"""A second."""

Track = npt.NDArray[np.float32]


def read_track(field: str, file: InputFile, seconds: float) -> Track:
    """(2, samples) of the sound in ``file``, as long as the clip: cut off, or with silence after its end.

    Args:
        field: the parameter that it was given for.
        file: the sound.
        seconds: of the clip.

    Raises:
        InvalidInput: no sound, an empty or a broken one; names ``field``.
    """
    length = round(seconds * RATE)
    parts: list[Track] = []
    try:
        with av.open(io.BytesIO(file.data)) as container:
            if not container.streams.audio:
                raise InvalidInput(field, file.media_type, "a sound: this file has none")
            for part in _resampled(container):
                parts.append(part)
                if sum(one.shape[1] for one in parts) >= length:
                    break
    except (InvalidInput, MemoryError):
        raise
    except av.FFmpegError:
        raise InvalidInput(field, file.media_type, "a sound that can be read, such as WAV, FLAC, OGG or MP3") from None
    found = np.concatenate(parts, 1)[:, :length] if parts else np.zeros((2, 0), np.float32)
    if not found.size or not np.isfinite(found).all():
        raise InvalidInput(field, file.media_type, "a sound with finite samples in it")
    return np.pad(found, ((0, 0), (0, length - found.shape[1]))).clip(-1, 1)


def _resampled(container: Any) -> Iterator[Track]:
    stream = container.streams.audio[0]
    layout = "mono" if stream.channels == 1 else "stereo"  # one channel is doubled here: FFmpeg would make it softer
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
    for frame in chain(container.decode(stream), [None]):
        if frame is not None:
            frame.pts = None  # samples follow each other, whatever the file says of its times
        for made in resampler.resample(frame):
            yield np.broadcast_to(made.to_ndarray(), (2, made.samples)).astype(np.float32)


def encoded(stream: Any, track: Track) -> Iterator[Any]:
    """Packets of ``track``."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(track), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = RATE, 0
    yield from stream.encode(frame)
    yield from stream.encode(None)
