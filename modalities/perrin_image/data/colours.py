"""The colour word of a picture: pixels are named in OKLCh, and a word is given where it covers enough of the coloured
area.

OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020): LMS = M1 rgb, lab = M2 cbrt(LMS);
L in 0..1, C = |(a, b)|, h = atan2(b, a) in degrees.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "HUES", "dominant_colour", "from_oklch", "pixel_words", "shares", "to_oklch"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
HUES = COLOURS[:8]
_NONE = len(COLOURS)

Floats: TypeAlias = NDArray[np.float32]

_M1 = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_M2 = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_oklch(rgb: NDArray[np.uint8]) -> Floats:
    """sRGB uint8 [..., 3] -> OKLCh float32 [..., 3]: L 0..1, C 0..0.33, h in degrees 0..360."""
    values = rgb.astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _M1.T) @ _M2.T
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    return np.stack([lab[..., 0], chroma, hue], axis=-1).astype(np.float32)


def _linear(lch: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.radians(lch[..., 2])
    lab = np.stack([lch[..., 0], lch[..., 1] * np.cos(angle), lch[..., 1] * np.sin(angle)], axis=-1)
    return (lab @ np.linalg.inv(_M2).T) ** 3 @ np.linalg.inv(_M1).T


def from_oklch(lch: Floats) -> NDArray[np.uint8]:
    """OKLCh [..., 3] -> sRGB uint8 [..., 3]; colours outside sRGB lose chroma (by bisection), never hue or
    lightness."""
    wanted = lch.astype(np.float64)
    wanted[..., 0] = wanted[..., 0].clip(0, 1)
    low, high = np.zeros(wanted.shape[:-1]), np.ones(wanted.shape[:-1])
    trial = wanted.copy()
    for share in (high, *([None] * 10)):
        middle = share if share is not None else (low + high) / 2
        trial[..., 1] = wanted[..., 1] * middle
        linear = _linear(trial)
        inside = ((linear > -1e-4) & (linear < 1 + 1e-4)).all(-1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    trial[..., 1] = wanted[..., 1] * low
    linear = _linear(trial).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    result: NDArray[np.uint8] = np.rint(srgb.clip(0, 1) * 255).astype(np.uint8)
    return result


def pixel_words(lch: Floats) -> NDArray[np.int8]:
    """Index into COLOURS for each pixel [...]; len(COLOURS) where no word fits (teal, cream, skin)."""
    light, chroma, hue = lch[..., 0], lch[..., 1], lch[..., 2]
    words = np.full(light.shape, _NONE, np.int8)

    def put(word: str, where: NDArray[np.bool_]) -> None:
        words[where] = COLOURS.index(word)

    strong = chroma >= 0.045
    # What is drawn as white, gray or black often leans to lavender; nobody would call it purple.
    lavender = (
        (hue >= 262) & (hue < 330) & (chroma < np.where(light > 0.75, 0.072, np.where(light < 0.45, 0.085, 0.055)))
    )
    slate = (hue >= 195) & (hue < 262) & (chroma < 0.065) & (light < 0.75)
    strong &= ~(lavender | slate)
    put("red", strong & ((hue >= 8) & (hue < 43)) & (light <= 0.70))
    put("pink", strong & ((hue >= 325) | (hue < 8)) & (light > 0.5))
    put("pink", strong & ((hue >= 8) & (hue < 35)) & (light > 0.70))
    put("red", strong & ((hue >= 0) & (hue < 8)) & (light <= 0.55))
    put("pink", strong & ((hue >= 0) & (hue < 18)) & (light > 0.62))
    put("orange", strong & (hue >= 43) & (hue < 75) & (light >= 0.60) & (chroma >= 0.11))
    put("yellow", strong & (hue >= 75) & (hue < 113) & (light >= 0.70) & (chroma >= 0.095))
    put("brown", strong & (hue >= 28) & (hue < 100) & (light < 0.68) & (light >= 0.15) & (chroma < 0.118))
    put("brown", strong & (hue >= 43) & (hue < 90) & (light < 0.60) & (light >= 0.15))
    put("brown", strong & (hue >= 40) & (hue < 90) & (light < 0.76) & (light >= 0.60) & (chroma < 0.10))
    put("green", strong & (hue >= 113) & (hue < 185))
    put("blue", strong & (hue >= 212) & (hue < 285))
    put("purple", strong & (hue >= 285) & (hue < 325))
    put("purple", strong & (hue >= 325) & (hue < 345) & (light <= 0.55))
    neutral = (chroma < 0.045) | lavender | slate
    put("black", neutral & (light < 0.38))
    put("gray", neutral & (light >= 0.38) & (light < 0.90))
    put("white", ((chroma < 0.02) | lavender) & (light >= 0.88))
    put("black", light < 0.22)
    return words


def shares(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    """How much each word covers.

    Args:
        pixels: uint8 [H, W, 4] straight alpha.

    Returns:
        Areas [len(COLOURS) + 1] as shares of the opaque area (the last is "no word"), and the share that has a hue at
        all.
    """
    opaque = pixels[..., 3] >= 128
    if not opaque.any():
        return np.zeros(_NONE + 1), 0.0
    lch = to_oklch(pixels[opaque][:, :3])
    words = pixel_words(lch)
    count = np.bincount(words, minlength=_NONE + 1).astype(np.float64)
    hued = (lch[:, 1] >= 0.045) & (lch[:, 0] >= 0.22) & (words < len(HUES)) | (words == _NONE)
    return count / count.sum(), float(hued.mean())


def dominant_colour(pixels: NDArray[np.uint8], least: float = 0.55) -> str | None:
    """The word covering at least `least` of the coloured area of uint8 [H, W, 4], else None.

    Outlines and highlights have no hue, so the hues are measured among the pixels that have one, where those are a
    third of the picture or more; black, white and gray need most of the whole.
    """
    area, coloured = shares(pixels)
    if coloured >= 0.34:
        best = int(np.argmax(area[: len(HUES)]))
        plain = area[COLOURS.index("white")] + area[COLOURS.index("gray")]
        return COLOURS[best] if area[best] >= max(least * coloured, 0.25, 0.8 * plain) else None
    best = int(np.argmax(area[:_NONE]))
    return COLOURS[best] if best >= len(HUES) and area[best] >= max(least, 0.62) else None
