"""Control: a line drawing, or a depth picture, that says where things are.

What somebody gives is fitted as `image` is, and becomes one plane of numbers from 0 to 1: where there are lines, or
how near a thing is. Lines may be white on black or black on white. An ordinary picture given as ``edge`` has its edges
found first.

References:
    Canny, A Computational Approach to Edge Detection (1986): gradients, thinned, and kept where a strong one is near.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.picture_files import cut_out, read_picture
from perrin.pictures import Pixels

__all__ = ["KINDS", "LINES", "edges", "lines_in", "plane", "read_control"]

KINDS = ("edge", "scribble", "depth")
"""What a control may be."""

LINES = frozenset({"edge", "scribble"})
"""Those that are drawings of lines."""

Plane: TypeAlias = npt.NDArray[np.float32]

STRONG, WEAK = 0.24, 0.10
"""Steps from pixel to pixel, of 1, that begin an edge, and that go on with one."""

COLOURFUL = 48
"""A pixel whose channels differ by more, of 255, has a colour; line drawings hardly have any."""

PAPER = 0.6
"""Of a line drawing at least so much is paper."""

LIGHTNESS = (0.299, 0.587, 0.114)
"""Of red, green and blue."""

FINER = 4
"""Drawings are looked at so much larger than the control first, so that thin lines survive."""

MOST_SIDE = 1024
"""But not beyond this many pixels."""


def edges(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Where the edges of pictures are, one pixel thin.

    Args:
        pixels: uint8 (B, H, W, 4), straight alpha.

    Returns:
        bool (B, H, W).
    """
    values = pixels.astype(np.float32) / 255
    alpha = values[..., 3:]
    planes = np.concatenate([values[..., :3] * alpha + 1 - alpha, alpha], -1)
    steep, angle = _gradients(_smooth(planes))
    strongest = steep.argmax(-1)[..., None]
    size = np.take_along_axis(steep, strongest, -1)[..., 0]
    thin = _thin(size, np.take_along_axis(angle, strongest, -1)[..., 0])
    found, weak = thin >= STRONG, thin >= WEAK
    while True:
        grown = _spread(found) & weak
        if (grown == found).all():
            return found
        found = grown


def _smooth(planes: Plane) -> Plane:
    """(B, H, W, C) under the window (1, 2, 1) / 4 along both sides."""
    for axis in (1, 2):
        rim = [(1, 1) if n == axis else (0, 0) for n in range(4)]
        wide = np.pad(planes, rim, mode="edge")
        low, mid, high = (np.take(wide, np.arange(n, n + planes.shape[axis]), axis) for n in range(3))
        planes = np.asarray((low + 2 * mid + high) / 4, np.float32)
    return planes


def _gradients(planes: Plane) -> tuple[Plane, Plane]:
    """Size and direction (turns of an eighth, 0 to 3) of the central differences."""
    wide = np.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    right, down = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
    turn: Plane = np.rint(np.arctan2(down, right) / (np.pi / 4)).astype(np.float32) % 4
    return np.hypot(right, down), turn


def _thin(size: Plane, turn: Plane) -> Plane:
    """``size`` where neither neighbour across the edge is larger; 0 elsewhere."""
    wide = np.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = size.shape[1:]
    keep = np.zeros(size.shape, bool)
    for way, (y, x) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        ahead = wide[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = wide[:, 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        keep |= (turn == way) & (size > ahead) & (size >= behind)
    return np.where(keep, size, np.float32(0))


def _spread(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``found`` and the eight pixels around."""
    wide = np.pad(found, ((0, 0), (1, 1), (1, 1)))
    height, width = found.shape[1:]
    around = [wide[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    result: npt.NDArray[np.bool_] = np.logical_or.reduce(around)
    return result


def lines_in(pixels: Pixels) -> Plane:
    """How much each pixel (H, W, 4) differs from the paper, 0 to 1; the darkest or lightest line has 1.

    Paper is what most of the rim is: transparent, or one colour.
    """
    alpha = pixels[..., 3].astype(np.float32) / 255
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(rim[:, 3]) < 128:
        differs = alpha
    else:
        colour = pixels[..., :3] * alpha[..., None] + 255 * (1 - alpha[..., None])
        differs = np.abs(colour - np.median(rim[:, :3], axis=0)).max(-1) / 255
    most = float(differs.max())
    faint: Plane = (differs / most if most > 0.05 else np.zeros_like(differs)).astype(np.float32)
    return faint


def _is_drawing(pixels: Pixels) -> bool:
    """Whether a picture (H, W, 4) is lines without colour on paper."""
    seen = pixels[..., 3:].astype(np.float32) / 255
    colour = pixels[..., :3] * seen
    plain = np.mean(colour.max(-1) - colour.min(-1) <= COLOURFUL)
    return bool(plain > 0.98 and np.mean(lines_in(pixels) < 0.25) >= PAPER and _is_thin(lines_in(pixels) > 0.5))


def _is_thin(ink: npt.NDArray[np.bool_]) -> bool:
    """Whether little is left of the ink where its outermost fiftieth of the side is taken away."""
    left = ink
    for _ in range(max(1, len(ink) // 50)):
        left = ~_spread(~left[None])[0]
    return bool(left.sum() <= 0.25 * ink.sum())


def read_control(kind: str, file: InputFile, width: int, height: int) -> Plane:
    """The plane of a control: float32 (height, width), 0 to 1.

    Args:
        kind: of `KINDS`.
        file: as of `perrin.picture_files.read_picture`.
        width, height: pixels.

    Raises:
        InvalidInput: no picture, or no lines in it; names ``control.KIND``.
    """
    field = f"control.{kind}"
    if kind not in LINES:
        picture = read_picture(field, file, width, height).astype(np.float32) / 255
        near: Plane = (picture[..., :3] @ np.array(LIGHTNESS, np.float32) * picture[..., 3]).astype(np.float32)
        return near
    finer = max(1, min(FINER, MOST_SIDE // max(width, height)))
    fine = read_picture(field, file, finer * width, finer * height)
    lines: npt.NDArray[np.bool_]
    if kind == "edge" and not _is_drawing(fine):
        lines = edges(cut_out(read_picture(field, file, width, height))[None])[0]
    else:
        blocks = lines_in(fine).reshape(height, finer, width, finer)
        lines = (blocks.max((1, 3)) >= 0.5) & (blocks.mean((1, 3)) > 0.15)
    if not lines.any():
        raise InvalidInput(field, file.media_type, "a picture with lines on plain paper: this one is blank")
    if lines.mean() > PAPER:
        raise InvalidInput(field, file.media_type, "lines on plain paper; an ordinary picture can be an edge")
    return lines.astype(np.float32)


def plane(kind: str, kinds: tuple[str, ...], found: Plane) -> Plane:
    """(len(kinds), H, W): ``found`` in the plane of its kind, nothing in the others."""
    return np.stack([found if name == kind else np.zeros_like(found) for name in kinds])
