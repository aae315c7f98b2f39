"""What a request comes to: when each frame is, where the thing is in it, which frames are given. Imports torch.

Motion is read out of the caption (`perrin_video.network.MotionReader`); what is given (a first and a last picture,
frames of a clip) is measured, and the motion is made to pass through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perrin.inputs import InputFile
from perrin.picture_files import cut_out, read_picture
from perrin_video.face import VideoParameters, frames_named
from perrin_video.measure import pose_of
from perrin_video.motions import Poses
from perrin_video.reading import read_clip

__all__ = ["Plot", "periodic", "plot_of", "through"]

Frames = npt.NDArray[np.uint8]
Reader = Callable[[npt.NDArray[np.float64]], Poses]
"""From seconds (F,) to poses (F, 7)."""

PORTRAIT = np.array([0, 0, 0, 1, 0, 1, 0], np.float32)

STILL = 0.05
"""Poses that differ by less, in every number, are one."""

MOST = 1.6
"""A size, beside what fills the frame, beyond which nothing is drawn."""


@dataclass(frozen=True)
class Plot:
    """A clip to be.

    Attributes:
        seconds: (F,) when each frame is shown.
        length: seconds of the whole.
        told: (F,) the seconds that the model is told; those of a loop turn back.
        poses: (F, 7).
        given: uint8 (F, S, S, 4), empty where nothing was given; or None.
        guide: the same for the model: things cut out of white paper.
        kept: (F,) frames that stay as they were given.
        picture: what was given that shows the thing, and its pose; or None, where the prompt says what it is.
        strength: how far to go from what was given; 1 where nothing of it is begun with.
    """

    seconds: npt.NDArray[np.float64]
    length: float
    told: npt.NDArray[np.float64]
    poses: Poses
    given: Frames | None
    guide: Frames | None
    kept: npt.NDArray[np.bool_]
    picture: tuple[Frames, Poses] | None = None
    strength: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether the thing is to be in more than one pose."""
        return bool(np.ptp(self.poses, axis=0).max() > STILL)


def plot_of(p: VideoParameters, inputs: Mapping[str, InputFile], reader: Reader | None, side: int) -> Plot:
    """The plot of a resolved request.

    Args:
        p: the request.
        inputs: its files.
        reader: reads the motion of its prompts; None where it has none.
        side: pixels of a frame as it is drawn.

    Raises:
        InvalidInput: a picture or a clip cannot be read, or ``keep`` names frames that it has not.
    """
    if p.video is not None:
        return _from_clip(p, inputs["video"], side)
    count, rate = p.frames or 1, p.fps or 8.0
    seconds = np.asarray(p.times, np.float64) if p.times else np.arange(count) / rate
    length = float(seconds[-1] + (np.median(np.diff(seconds)) if len(seconds) > 1 else 1 / rate))
    told = seconds
    if p.loop and reader is not None:
        told = periodic(reader, seconds, length)
    poses = np.tile(PORTRAIT, (count, 1)) if reader is None else reader(told)
    plot = Plot(seconds, length, told, poses, None, None, np.zeros(count, bool))
    pictures = {at: read_picture(name, inputs[name], side, side) for name, at in _ends(p, count)}
    if not pictures:
        return plot
    given = np.zeros((count, side, side, 4), np.uint8)
    kept = plot.kept.copy()
    for at, picture in pictures.items():
        given[at], kept[at] = picture, True
    guide = np.stack([cut_out(frame) for frame in given])
    measured = {at: _measured(guide[at]) for at in pictures}
    poses = through(poses, measured) if reader is not None else _between(count, measured)
    first = min(pictures)
    return replace(plot, poses=poses, given=given, guide=guide, kept=kept, picture=(guide[first], measured[first]))


def _ends(p: VideoParameters, count: int) -> list[tuple[str, int]]:
    return [(name, at) for name, at in (("last", count - 1), ("image", 0)) if getattr(p, name) is not None]


def _measured(picture: Frames) -> Poses:
    found = pose_of(picture)
    return PORTRAIT if found is None else found


def through(poses: Poses, measured: Mapping[int, Poses]) -> Poses:
    """The motion ``poses`` (F, 7), moved and zoomed so that it passes through what was measured at some frames.

    Where that is at one frame, the whole motion is seen as large as the thing is there, and begins where it is; of
    several, what is amiss is made good evenly in between.
    """
    places = sorted(measured)
    first = places[0]
    zoom = float(np.exp(np.clip(measured[first][2] - poses[first][2], -2, 2)))
    made = poses.copy()
    made[:, :2] = (poses[:, :2] - poses[first, :2]) * zoom + measured[first][:2]
    made[:, 2] = poses[:, 2] + np.log(zoom)
    made[:, 6] = poses[:, 6] * zoom
    if len(places) > 1:
        amiss = np.stack([measured[place][:3] - made[place, :3] for place in places])
        for axis in range(3):
            made[:, axis] += np.interp(np.arange(len(poses)), places, amiss[:, axis]).astype(np.float32)
    made[:, 2] = made[:, 2].clip(max=np.log(MOST))
    return made


def _between(count: int, measured: Mapping[int, Poses]) -> Poses:
    """Straight from one measured pose to the next."""
    places = sorted(measured)
    known = np.stack([measured[place] for place in places])
    return np.stack([np.interp(np.arange(count), places, known[:, axis]) for axis in range(known.shape[1])], -1).astype(
        np.float32
    )


def periodic(reader: Reader, seconds: npt.NDArray[np.float64], length: float) -> npt.NDArray[np.float64]:
    """Seconds to tell for a loop of ``length``: a little faster or slower, so that a motion that repeats comes round;
    of any other, there and back."""
    ends = length * np.linspace(0.6, 1.7, 111)
    step = 0.05
    path = reader(np.concatenate([[0.0, step], ends, ends + step]))
    begin, after = path[0], path[1]
    amiss = np.abs(path[2 : 2 + len(ends)] - begin).max(1) + np.abs(path[2 + len(ends) :] - after).max(1)
    good = amiss < amiss.min() + 0.06
    best = int(np.flatnonzero(good)[np.argmin(np.abs(np.log(ends[good] / length)))])
    if amiss[best] < 0.3:
        return np.asarray(seconds * (ends[best] / length), np.float64)
    half = length / 2
    return half - np.abs(seconds - half)


def _from_clip(p: VideoParameters, file: InputFile, side: int) -> Plot:
    """Of a clip that was given: all its frames with others in between, some of them kept, or the way it moves."""
    clip = read_clip("video", file, side)
    if p.between is not None:
        return _filled(p.between, clip.frames, clip.seconds, clip.length)
    rate = p.fps or min(60.0, max(1.0, clip.rate))
    count = p.frames or max(1, min(240, round(clip.length * rate)))
    seconds = np.asarray(p.times, np.float64) if p.times else np.arange(count) / rate
    frames = clip.at(seconds)
    guide = np.stack([cut_out(frame) for frame in frames])
    kept = np.zeros(count, bool)
    if p.keep is not None:
        kept[frames_named(p.keep, count)] = True
    measured = {at: found for at, frame in enumerate(guide) if (found := pose_of(frame)) is not None}
    if p.keep is not None:
        measured = {at: found for at, found in measured.items() if kept[at]} or measured
    poses = _between(count, measured) if measured else np.tile(PORTRAIT, (count, 1))
    length = float(seconds[-1] + (np.median(np.diff(seconds)) if count > 1 else 1 / rate))
    strength = 1.0 if p.keep is not None or p.strength is None else p.strength
    picture = None
    if (p.prompt is None or p.keep is not None) and measured:
        at = max(measured, key=lambda number: float(measured[number][2]))
        picture = (guide[at], measured[at])
    return Plot(seconds, length, seconds, poses, frames, guide, kept, picture, strength)


def _filled(between: int, frames: Frames, seconds: npt.NDArray[np.float64], length: float) -> Plot:
    step = between + 1
    count = (len(frames) - 1) * step + 1
    given = np.zeros((count, *frames.shape[1:]), np.uint8)
    kept = np.zeros(count, bool)
    given[::step], kept[::step] = frames, True
    guide = np.stack([cut_out(frame) for frame in given])
    when = np.interp(np.arange(count) / step, np.arange(len(frames)), seconds)
    measured = {at: found for at in np.flatnonzero(kept).tolist() if (found := pose_of(guide[at])) is not None}
    poses = _between(count, measured) if measured else np.tile(PORTRAIT, (count, 1))
    picture = None
    if measured:
        at = max(measured, key=lambda number: float(measured[number][2]))
        picture = (guide[at], measured[at])
    return Plot(when, length, when, poses, given, guide, kept, picture)


def as_tensor(values: npt.NDArray[Any], device: str) -> torch.Tensor:
    """(1, ...) of an array."""
    kind = np.float32 if values.dtype.kind == "f" else values.dtype
    return torch.from_numpy(np.ascontiguousarray(values.astype(kind)))[None].to(device)
