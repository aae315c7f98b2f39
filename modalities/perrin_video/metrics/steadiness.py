r"""What should not change in a clip: its thing, and its colours. Arithmetic on frames, uint8 (F, H, W, 4). No torch.

Identity is how alike the thing is in all frames: each is put in the middle and made as large as in the first, turned
back by what turned it, and compared there,

.. math:: 1 - \frac{1}{F - 1} \sum_f \overline{|c_f - c_1|}

over the places where either shows something. Drift is how far the mean colour of the thing goes from the clip's first
window to its last, in CIELAB distance over 100.

References:
    CIE 15 (2004), section 8.2.1 (CIELAB), D65.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from perrin_video.measure import look, pose_of

__all__ = ["drift", "identity", "lab"]

Frames = npt.NDArray[np.uint8]

SIDE = 32


def identity(frames: Frames) -> float:
    """How alike the thing is in all frames that show it whole and more than half opaque: 1 is the same everywhere."""
    seen = look(frames)
    whole = [n for n in range(len(frames)) if seen.size[n] > 0.08 and seen.opacity[n] > 0.5 and not seen.cut[n]]
    if len(whole) < 2:
        return 1.0
    turned = np.cumsum(seen.turn)
    first = _alone(frames[whole[0]], 0.0)
    values = []
    for number in whole[1:]:
        other = _alone(frames[number], float(turned[number] - turned[whole[0]]))
        there = np.maximum(first[..., 3], other[..., 3]) > 0.3
        if there.any():
            values.append(np.abs(first[there] - other[there])[:, :3].mean())
    return float(1 - np.mean(values)) if values else 1.0


def _alone(frame: Frames, turned: float) -> npt.NDArray[np.float64]:
    """The thing in the middle, as large as fits, over white; and its alpha: (SIDE, SIDE, 4), 0 to 1."""
    pose = pose_of(frame)
    assert pose is not None
    height, width = frame.shape[:2]
    alpha = frame[..., 3:].astype(np.float64) / 255
    flat = np.concatenate([frame[..., :3] * alpha + 255 * (1 - alpha), 255 - frame[..., 3:]], -1).round()
    middle = ((pose[0] + 1) * width / 2, (pose[1] + 1) * height / 2)
    half = float(np.exp(pose[2])) * width / 2
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    picture = Image.fromarray(flat.astype(np.uint8), "CMYK").transform(
        (SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255, 255)
    )
    back = picture.rotate(turned, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255, 255))
    made = np.asarray(back, np.float64) / 255
    return np.concatenate([made[..., :3], 1 - made[..., 3:]], -1)


def drift(frames: Frames, windows: int = 4) -> float:
    """CIELAB distance over 100 between the thing's mean colours in the first and in the last of ``windows`` parts."""
    size = max(1, len(frames) // windows)
    first, last = (_mean_colour(part) for part in (frames[:size], frames[-size:]))
    return float(np.linalg.norm(lab(first) - lab(last)) / 100)


def _mean_colour(frames: Frames) -> npt.NDArray[np.float64]:
    weight = frames[..., 3:].astype(np.float64)
    return np.asarray((frames[..., :3] * weight).sum((0, 1, 2)) / max(float(weight.sum()), 1.0), np.float64)


def lab(colour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIELAB of sRGB (..., 3), 0 to 255."""
    v = colour / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
