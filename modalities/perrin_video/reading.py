"""Clips in: bytes that somebody gave, to frames with their times.

Containers and codecs are FFmpeg's, through PyAV; GIF and animated WebP are Pillow's, which knows their transparency.
What comes out is upright, straight-alpha RGBA, in the order of its times, whatever the rate does meanwhile.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence, UnidentifiedImageError

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.picture_files import MOST_PIXELS

__all__ = ["MOST_SECONDS", "Given", "read_clip"]

MOST_SECONDS = 60.0
"""Longer clips are refused."""

MOST_READ = 1200
"""Frames that are looked at."""

ALONE = 1 / 8
"""Seconds that a frame is shown of which nothing says it."""

Frames = npt.NDArray[np.uint8]


class Given:
    """A clip that was given.

    Attributes:
        frames: uint8 (F, side, side, 4), as they were given.
        seconds: (F,) when each is shown, the first at 0.
        length: seconds, the last frame's included.
    """

    def __init__(self, frames: Frames, seconds: npt.NDArray[np.float64]) -> None:
        self.frames, self.seconds = frames, seconds
        steps = np.diff(seconds)
        self.length = float(seconds[-1] + (np.median(steps) if len(steps) else ALONE))

    @property
    def rate(self) -> float:
        """Frames a second, on average."""
        return len(self.frames) / self.length

    def at(self, seconds: npt.ArrayLike) -> Frames:
        """The frames that are shown at ``seconds``."""
        number = np.searchsorted(self.seconds, np.asarray(seconds) + 1e-6, side="right") - 1
        shown: Frames = self.frames[number.clip(0, len(self.frames) - 1)]
        return shown


def read_clip(field: str, file: InputFile, side: int) -> Given:
    """The clip in ``file``, fitted into a square by cover and crop.

    Args:
        field: the parameter that it was given for.
        file: what FFmpeg opens, or a GIF or WebP.
        side: pixels.

    Raises:
        InvalidInput: no clip, an empty, broken, too large or too long one; names ``field``.
    """
    frames: list[Frames] = []
    seconds: list[float] = []
    read = _pillow if file.media_type in ("image/gif", "image/webp") else _ffmpeg
    try:
        for picture, when in read(field, file):
            if len(frames) == MOST_READ or when - (seconds[0] if seconds else when) > MOST_SECONDS:
                wanted = f"a clip of at most {MOST_SECONDS:g} s and {MOST_READ} frames"
                raise InvalidInput(field, f"{len(frames)} frames and more", wanted)
            frames.append(np.asarray(_square(picture, side)))
            seconds.append(when)
    except (InvalidInput, MemoryError):
        raise
    except (av.FFmpegError, UnidentifiedImageError):
        raise InvalidInput(field, file.media_type, "a clip that can be read, such as MP4, WebM or GIF") from None
    except Exception as error:  # readers raise anything for a broken file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InvalidInput(field, file.media_type, f"a whole clip: {reason}") from None
    if not frames:
        raise InvalidInput(field, file.media_type, "a clip with frames in it: this one has none")
    order = np.argsort(seconds, kind="stable")
    times = np.asarray(seconds)[order]
    return Given(np.stack(frames)[order], times - times[0])


def _ffmpeg(field: str, file: InputFile) -> Iterator[tuple[Image.Image, float]]:
    """Upright frames and when each is shown; of a stream without times, by its rate."""
    container: Any
    with av.open(io.BytesIO(file.data)) as container:
        if not container.streams.video:
            raise InvalidInput(field, file.media_type, "a clip with pictures: this file has none")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.width * context.height > MOST_PIXELS:
            wanted = f"a clip of at most {MOST_PIXELS // 1_000_000} million pixels a frame"
            raise InvalidInput(field, f"{context.width}x{context.height}", wanted)
        rate = float(stream.average_rate or Fraction(8))
        for number, frame in enumerate(container.decode(stream)):
            when = frame.time if frame.time is not None else number / rate
            turned = round(getattr(frame, "rotation", 0) or 0) % 360
            picture = Image.fromarray(frame.to_ndarray(format="rgba"))
            yield (picture.rotate(turned, expand=True) if turned else picture), float(when)


def _pillow(field: str, file: InputFile) -> Iterator[tuple[Image.Image, float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = Image.open(io.BytesIO(file.data), formats=("GIF", "WEBP"))
        if picture.width * picture.height > MOST_PIXELS:
            wanted = f"a clip of at most {MOST_PIXELS // 1_000_000} million pixels a frame"
            raise InvalidInput(field, f"{picture.width}x{picture.height}", wanted)
        when = 0.0
        for frame in ImageSequence.Iterator(picture):
            yield frame.convert("RGBA"), when
            when += (frame.info.get("duration") or 1000 * ALONE) / 1000


def _square(picture: Image.Image, side: int) -> Image.Image:
    if picture.size == (side, side):
        return picture
    short = min(picture.size)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    box = (left, top, left + short, top + short)
    kind = Image.Resampling.BOX if short % side == 0 else Image.Resampling.LANCZOS
    return picture.resize((side, side), kind, box=box)
