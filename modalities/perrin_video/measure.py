"""Where a thing is in a frame, and how clips move: arithmetic on alpha, which no model takes part in. No torch.

Frames are uint8 (F, H, W, 4), straight alpha. Lengths are in half-sides of the frame, as of `perrin_video.motions`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from perrin_video.motions import LEAST, MOST, POSE, RATE, SPEEDS, Motion, Poses

__all__ = ["Seen", "judge", "look", "pose_of", "still"]

Frames = npt.NDArray[np.uint8]

VISIBLE = 24
"""Alpha, of 255, from which on something is there."""

FULL = 60 / 64
"""Share of a frame's side that a thing has which fills it: pictures have a margin."""


GROWTH = float(np.log(MOST / LEAST)) / 2
"""Of the logarithm of the size, a second."""


CHANGING = 0.012
"""Mean change from frame to frame, of 1, of a thing in its own middle that is not still."""


@dataclass(frozen=True)
class Seen:
    """What is seen of a clip, frame by frame, (F,) each.

    Attributes:
        x, y: middle of what is seen, weighed by alpha.
        size: side of the square of as much area as alpha covers, over the side of the frame.
        opacity: of what is seen: the mean alpha of its inner half.
        wide: deviation of alpha from the middle, to the side, over that downwards.
        gap: share of the columns between the outermost ones that are empty.
        cut: whether something touches the edge.
        turn: degrees clockwise since the frame before, by the turn that fits best.
        change: mean change of colour and alpha since the frame before, both put in the middle, of 1.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    opacity: npt.NDArray[np.float64]
    wide: npt.NDArray[np.float64]
    gap: npt.NDArray[np.float64]
    cut: npt.NDArray[np.bool_]
    turn: npt.NDArray[np.float64]
    change: npt.NDArray[np.float64]


def pose_of(frame: Frames) -> Poses | None:
    """The pose (7,) of what is in a frame (H, W, 4), unturned, by its box; None where nothing is."""
    seen = frame[..., 3] > VISIBLE
    if not seen.any():
        return None
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    half = np.array(frame.shape[:2], np.float64) / 2
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    size = max((bottom - top) / half[0], (right - left) / half[1]) / 2 / FULL
    values = {
        "x": (left + right) / 2 / half[1] - 1,
        "y": (top + bottom) / 2 / half[0] - 1,
        "log_size": np.log(max(size, 0.05)),
        "cos": 1.0,
        "opacity": frame[..., 3].max() / 255,
    }
    return np.array([values.get(name, 0.0) for name in POSE], np.float32)


def look(frames: Frames) -> Seen:
    """What is seen of a clip."""
    count, height, width = frames.shape[:3]
    alpha = frames[..., 3].astype(np.float64) / 255
    mass = alpha.sum((1, 2))
    weight = alpha / np.maximum(mass, 1e-9)[:, None, None]
    down, right = (
        np.linspace(-1 + 1 / height, 1 - 1 / height, height),
        np.linspace(-1 + 1 / width, 1 - 1 / width, width),
    )
    x, y = (weight.sum(1) * right).sum(1), (weight.sum(2) * down).sum(1)
    spread_x = np.sqrt((weight.sum(1) * (right - x[:, None]) ** 2).sum(1))
    spread_y = np.sqrt((weight.sum(2) * (down - y[:, None]) ** 2).sum(1))
    seen = frames[..., 3] > VISIBLE
    opacity, gap = np.zeros(count), np.zeros(count)
    for number in range(count):
        values = np.sort(alpha[number][seen[number]])
        opacity[number] = values[len(values) // 2 :].mean() if len(values) else 0.0
        columns = np.flatnonzero(seen[number].any(0))
        if len(columns):
            gap[number] = 1 - len(columns) / (columns[-1] - columns[0] + 1)
    rim = np.concatenate([seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1]], 1)
    cut = np.asarray(rim.any(1))
    middles = [_centred(frame, (x[n], y[n])) for n, frame in enumerate(frames)]
    turns, changes = np.zeros(count), np.zeros(count)
    for number in range(1, count):
        turns[number], changes[number] = _turn(middles[number - 1], middles[number])
    area = np.sqrt(mass / np.maximum(opacity, 1e-3) / (height * width))
    return Seen(x, y, area, opacity, spread_x / np.maximum(spread_y, 1e-6), gap, cut, turns, changes)


def _centred(frame: Frames, middle: tuple[float, float]) -> Image.Image:
    """Colour over white and alpha, 32 pixels a side, the middle in the middle."""
    height, width = frame.shape[:2]
    alpha = frame[..., 3:].astype(np.float32) / 255
    flat = (
        np.concatenate([frame[..., :3] * alpha + 255 * (1 - alpha), 255 - frame[..., 3:]], -1).round().astype(np.uint8)
    )
    shift = (1, 0, middle[0] * width / 2, 0, 1, middle[1] * height / 2)
    picture = Image.fromarray(flat, "CMYK").transform(
        (width, height), Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255, 255)
    )
    return picture.resize((32, 32), Image.Resampling.BOX)


ANGLES = np.arange(-90, 91, 7.5)


def _turn(before: Image.Image, after: Image.Image) -> tuple[float, float]:
    """The turn, clockwise, that makes one frame most like the next; and how unlike they are without one."""
    aim = np.asarray(after, np.float32)
    white = (255, 255, 255, 255)
    errors = [
        np.abs(np.asarray(before.rotate(-a, Image.Resampling.BILINEAR, fillcolor=white), np.float32) - aim).mean()
        for a in ANGLES
    ]
    plain = errors[len(ANGLES) // 2]
    best = int(np.argmin(errors))
    if plain < 0.5 or errors[best] > 0.8 * plain:  # nothing has changed, or it fits no better turned
        return 0.0, float(plain / 255)
    return float(ANGLES[best]), float(plain / 255)


def still(frames: Frames, least: float = 0.4) -> bool:
    """Whether no frame of a clip, of three or four channels, differs from the first: by so much of 255 on average."""
    first = frames[0].astype(np.float32)
    return all(np.abs(frame - first).mean() < least for frame in frames[1:])


def judge(frames: Frames, seconds: npt.ArrayLike) -> Motion:
    """The motion that a clip shows, by arithmetic on what is seen of it.

    Args:
        frames: uint8 (F, H, W, 4).
        seconds: (F,) when each is shown.
    """
    t, s = np.asarray(seconds, np.float64), look(frames)
    there = s.size > 0.03
    if there.sum() < 3:
        return Motion("still")
    kind, rate = _kind(t, s, there)
    return Motion(kind, _speed(kind, rate))


def _slope(t: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float:
    return float(np.polyfit(t, values, 1)[0]) if len(t) > 1 else 0.0


def _kind(t: npt.NDArray[np.float64], s: Seen, there: npt.NDArray[np.bool_]) -> tuple[str, float]:
    """The kind of motion, and its rate, 1 at no adverb."""
    turning = _spinning(t, s, there)
    if turning is not None:
        return ("spin" if turning > 0 else "spin back"), abs(turning) / 180
    whole = there & ~s.cut
    use = whole if whole.sum() >= 4 else there
    ts, x, y, size = t[use], s.x[use], s.y[use], s.size[use]
    dark = s.opacity[there]
    fading = _slope(t[there], dark)
    if np.ptp(dark) > 0.25:
        return ("appear" if fading > 0 else "fade"), _rate_to_end(t[there], dark) / 0.45
    ratio = float(np.log(max(size[-1], 1e-3) / max(size[0], 1e-3)))
    if abs(ratio) > 0.3 and np.ptp(x) < 0.35 and np.ptp(y) < 0.35:
        return ("grow" if ratio > 0 else "shrink"), _rate_to_end(ts, np.log(size)) / GROWTH
    if s.wide[there][-1] > 1.15 * s.wide[there][0] and s.gap[there].max() > 0.02:
        return "apart", max(0.0, _slope(ts, s.wide[use] * 0.2)) / 0.14 * 0.9
    around = _orbit(t[there], s.x[there], s.y[there])
    if around is not None:
        return "orbit", around
    if np.ptp(y) > 0.2 and np.ptp(x) < 0.25:
        vertical = _slope(ts, y)
        straight = np.abs(y - np.polyval(np.polyfit(ts, y, 1), ts)).max()
        if straight < 0.11 or straight < 0.12 * np.ptp(y):
            return ("down" if vertical > 0 else "up"), abs(vertical) / RATE
        return "bounce", _beat(t[there], s.y[there])
    if np.ptp(x) > 0.2:
        return ("right" if _slope(ts, x) > 0 else "left"), abs(_slope(ts, x)) / RATE
    if s.change[1:].mean() > CHANGING:  # of what looks alike from many sides nobody can tell how it turns
        return "spin", 1.0
    return "still", 0.0


def _spinning(t: npt.NDArray[np.float64], s: Seen, there: npt.NDArray[np.bool_]) -> float | None:
    """Degrees a second of something that turns and stays where it is; None where nothing does."""
    turns, steps = s.turn[1:][there[1:]], np.diff(t)[there[1:]]
    seen = np.abs(turns) > 4
    if len(turns) < 3 or seen.mean() < 0.6:
        return None
    same = np.sign(turns[seen]) == np.sign(np.median(turns[seen]))
    return float(np.median(turns[seen] / steps[seen])) if same.mean() > 0.7 else None


def _rate_to_end(t: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float:
    """How fast something changes on its way, the ends left out, where it may stand still."""
    low, high = values.min(), values.max()
    inner = (values > low + 0.1 * (high - low)) & (values < high - 0.1 * (high - low))
    if inner.sum() < 2:
        return abs(_slope(t, values))
    return abs(_slope(t[inner], values[inner]))


def _orbit(t: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float | None:
    """Rate of a walk around a circle; None where it is none."""
    if np.ptp(x) < 0.25 or np.ptp(y) < 0.25 or len(t) < 6:
        return None
    system = np.stack([2 * x, 2 * y, np.ones_like(x)], 1)
    (a, b, c), *_ = np.linalg.lstsq(system, x * x + y * y, rcond=None)
    radius = np.sqrt(max(c + a * a + b * b, 1e-9))
    away = np.hypot(x - a, y - b)
    if not 0.15 < radius < 0.7 or np.abs(away - radius).max() > 0.35 * radius:
        return None
    angle = np.unwrap(np.arctan2(y - b, x - a))
    return abs(_slope(t, angle)) / np.pi


def _beat(t: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Bounces a second: the rate whose path fits best."""
    rates = np.linspace(0.3, 2.2, 77)
    errors = []
    for rate in rates:
        path = np.stack([np.abs(np.sin(np.pi * rate * t)), np.ones_like(t)], 1)
        _, residual, *_ = np.linalg.lstsq(path, y, rcond=None)
        errors.append(float(residual[0]) if len(residual) else 0.0)
    return float(rates[int(np.argmin(errors))])


def _speed(kind: str, rate: float) -> str:
    """The adverb whose factor is nearest in logarithm."""
    if kind == "still":
        return ""
    return min(SPEEDS, key=lambda name: abs(np.log(SPEEDS[name] / max(rate, 1e-3))))
