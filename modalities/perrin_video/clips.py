"""Clips of captioned pictures that move: which picture, which motion, and the frames. Imports torch.

A picture is four channels in [-1, 1], colour over white and alpha, as image models have it. Its frames are made by
resampling, at twice the side and averaged, so that small things do not flicker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from perrin_video.motions import Motion, Poses, placed, pose, said
from perrin_video.network import own_coordinates

__all__ = ["BACKGROUND", "FRAMES", "PORTRAIT", "Clip", "draw_clip", "held_out", "kept_back", "render"]

FRAMES = 16

PORTRAIT: Poses = np.array([[0, 0, 0, 1, 0, 1, 0]], np.float32)
"""Where a thing is in a picture of it that an image model draws: in the middle, and fills it."""

BACKGROUND = torch.tensor([1.0, 1.0, 1.0, -1.0]).view(4, 1, 1)
"""White, and transparent."""

CHANCES: Mapping[str, float] = {
    "still": 0.05, "up": 0.09, "down": 0.09, "left": 0.09, "right": 0.09, "bounce": 0.12, "spin": 0.12,
    "spin back": 0.06, "grow": 0.07, "shrink": 0.07, "fade": 0.05, "appear": 0.04, "apart": 0.06, "orbit": 0.08,
}  # fmt: skip
"""How often each kind is shown."""

RATES = (6.0, 8.0, 8.0, 8.0, 12.0, 16.0, 24.0)
"""Frames a second."""


@dataclass(frozen=True)
class Clip:
    """A clip to be.

    Attributes:
        record: number of its picture.
        caption: what it shows.
        motion: what happens.
        seconds: (F,) time of each frame.
        poses: (F, 7) where the thing is.
    """

    record: int
    caption: str
    motion: Motion
    seconds: np.ndarray[Any, np.dtype[np.float64]]
    poses: Poses


@lru_cache(maxsize=1)
def held_out() -> list[dict[str, str]]:
    """The committed combinations of thing and motion."""
    text = (files("perrin_video") / "recipes" / "held-out-40.yaml").read_text()
    found: list[dict[str, str]] = yaml.safe_load(text)["combinations"]
    return found


def kept_back(captions: Sequence[str], kind: str) -> bool:
    """Whether a picture with these captions may not move so: one of them has all words of a thing that is held out."""
    barred = [set(entry["thing"].split()) for entry in held_out() if entry["kind"] == kind]
    return any(words <= set(caption.split()) for words in barred for caption in captions)


def draw_clip(
    records: Sequence[Any], chosen: int, generator: np.random.Generator, frames: int = FRAMES, plain: bool = False
) -> Clip:
    """A clip of picture ``chosen`` with a motion that it may show.

    Args:
        records: of the pictures; each has ``captions``.
        chosen: number of the picture.
        generator: of all choices.
        frames: how many.
        plain: seen as a request is made: eight frames a second from the start, at the usual size and place.
    """
    captions = records[chosen].captions
    kinds = [kind for kind in CHANCES if not kept_back(captions, kind)]
    chances = np.array([CHANCES[kind] for kind in kinds])
    kind = kinds[int(generator.choice(len(kinds), p=chances / chances.sum()))]
    motion = Motion(kind, "" if kind == "still" else ("", "", "slow", "fast")[int(generator.integers(4))])
    short = [caption for caption in captions if len(caption.split()) <= 4] or [captions[0]]
    thing = short[0] if generator.random() < 0.6 else short[int(generator.integers(len(short)))]
    caption = said(thing, motion, generator)
    if plain:
        seconds = np.arange(frames) / 8.0
        return Clip(chosen, caption, motion, seconds, pose(motion, seconds))
    rate, luck = RATES[int(generator.integers(len(RATES)))], generator.random()
    begin = 0.0 if luck < 0.6 else generator.uniform(0, 1.5) if luck < 0.8 else generator.uniform(0, 6)
    seconds = begin + np.arange(frames) / rate
    poses = pose(motion, seconds)
    luck = generator.random()
    if luck < 0.2:  # a picture that fills the frame, and then moves
        zoom = float(np.exp(-poses[0, 2]) * generator.uniform(0.85, 1.0))
        poses = placed(poses, zoom, (-poses[0, 0] * zoom, -poses[0, 1] * zoom))
    elif luck < 0.4:
        zoom = float(generator.uniform(0.75, 1.5))
        poses = placed(poses, zoom, (generator.uniform(-0.4, 0.4), generator.uniform(-0.4, 0.4)))
    return Clip(chosen, caption, motion, seconds, poses)


def render(picture: Tensor, poses: Poses) -> Tensor:
    """The frames of ``picture`` (4, H, W) at ``poses`` (F, 7): (F, 4, H, W)."""
    height, width = picture.shape[-2:]
    where = torch.from_numpy(poses)
    grid = own_coordinates(where, (2 * height, 2 * width)).unflatten(1, (2 * height, 2 * width))
    shown = (picture - BACKGROUND).expand(len(poses), -1, -1, -1)
    fine = F.grid_sample(shown, grid, align_corners=False)
    return F.avg_pool2d(fine, 2) * where[:, 5, None, None, None] + BACKGROUND
