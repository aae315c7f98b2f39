"""Give a picture another colour: the pixels of its main colour move to the target in OKLCh, everything else stays.

A pixel belongs to the main colour with weight w in 0..1: for a hue, by the distance of h from the mean hue h0; for
white and gray, by its lack of chroma. With means L0, C0 before and L1, C1 after:
L' = L + w (L1 + k (L - L0) - L), C' = C + w (C C1 / C0 - C), h' = h1 + 0.35 (h - h0). Shading survives because only
its mean moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colours import COLOURS, HUES, dominant_colour, from_oklch, pixel_words, shares, to_oklch

__all__ = ["TARGETS", "Target", "body_colour", "recolour"]

_WINDOW = 55.0
_LIGHT_NEUTRALS = (COLOURS.index("white"), COLOURS.index("gray"))


@dataclass(frozen=True)
class Target:
    """Where a colour word lies: hue in degrees, the range the mean lightness is moved into, the wanted mean chroma,
    the most contrast (the standard deviation of L) it bears without turning into another word."""

    hue: float
    lightness: tuple[float, float]
    chroma: float
    contrast: float


TARGETS = {
    "red": Target(26, (0.50, 0.60), 0.21, 0.14),
    "orange": Target(58, (0.70, 0.77), 0.175, 0.08),
    "yellow": Target(92, (0.83, 0.90), 0.165, 0.08),
    "green": Target(143, (0.56, 0.74), 0.17, 0.14),
    "blue": Target(252, (0.50, 0.68), 0.16, 0.14),
    "purple": Target(303, (0.48, 0.60), 0.18, 0.14),
    "pink": Target(355, (0.72, 0.80), 0.145, 0.08),
    "brown": Target(55, (0.40, 0.50), 0.075, 0.08),
    "black": Target(260, (0.22, 0.28), 0.01, 0.08),
    "white": Target(260, (0.93, 0.96), 0.004, 0.05),
    "gray": Target(260, (0.58, 0.70), 0.008, 0.08),
}


def body_colour(pixels: NDArray[np.uint8], least: float = 0.40) -> str | None:
    """The word whose change changes the picture uint8 [H, W, 4], or None.

    A hue word covers `least` of the coloured area, a quarter of the whole, twice what the next hue covers, and no
    less than white and gray do. Or it is "white" or "gray": together they cover nearly half of the picture, and no
    hue comes near.
    """
    area, coloured = shares(pixels)
    hues = area[: len(HUES)]
    order = np.argsort(hues)[::-1]
    best, second = hues[order[0]], hues[order[1]]
    white, gray = (float(area[word]) for word in _LIGHT_NEUTRALS)
    if best >= max(least * coloured, 0.25, white + gray) and best >= 2 * second:
        return COLOURS[int(order[0])]
    if white + gray >= max(0.45, least) and best < 0.6 * (white + gray):
        return "white" if white > gray else "gray"
    return None


def _membership(
    lch: NDArray[np.float32], chosen: NDArray[np.bool_], source: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight w [H, W] of the main colour and hue distance [H, W] from its mean, in degrees."""
    if source not in HUES:
        light = ((lch[..., 0] - 0.36) / 0.10).clip(0, 1)
        lavender = (lch[..., 2] > 240) & (lch[..., 2] < 330)
        return light * ((np.where(lavender, 0.085, 0.055) - lch[..., 1]) / 0.015).clip(0, 1), np.zeros_like(lch[..., 2])
    angle = np.radians(lch[chosen, 2])
    mean = np.arctan2((np.sin(angle) * lch[chosen, 1]).sum(), (np.cos(angle) * lch[chosen, 1]).sum())
    away = (lch[..., 2] - np.degrees(mean) + 180) % 360 - 180
    return ((_WINDOW - np.abs(away)) / 15).clip(0, 1) * ((lch[..., 1] - 0.02) / 0.03).clip(0, 1), away


def recolour(pixels: NDArray[np.uint8], source: str, target: str) -> NDArray[np.uint8] | None:
    """The picture with its `source`-coloured part in the colour `target`.

    Args:
        pixels: uint8 [H, W, 4] straight alpha.
        source: word found by `body_colour`.
        target: key of TARGETS.

    Returns:
        uint8 [H, W, 4] with the same alpha, or None where the result does not measure as `target` or keeps too much
        of `source`.
    """
    lch = to_oklch(pixels[..., :3])
    opaque = pixels[..., 3] >= 128
    chosen = opaque & (pixel_words(lch) == COLOURS.index(source))
    if not chosen.any():
        return None
    weight, away = _membership(lch, chosen, source)
    body = opaque & (weight > 0.5)
    if body.sum() < 16:
        return None
    aim = TARGETS[target]
    L0, C0 = float(lch[body, 0].mean()), float(lch[body, 1].mean())
    L1 = float(np.clip(L0, *aim.lightness))
    k = min(1.0, aim.contrast / max(float(lch[body, 0].std()), 1e-6))
    chroma = lch[..., 1] * (aim.chroma / max(C0, 1e-3)) if source in HUES else np.full_like(lch[..., 1], aim.chroma)
    out = lch.copy()
    out[..., 0] += weight * (L1 + k * (lch[..., 0] - L0) - lch[..., 0])
    out[..., 1] += weight * (chroma - lch[..., 1])
    out[..., 2] = np.where(weight > 0, (aim.hue + away * 0.35) % 360, lch[..., 2])
    result = pixels.copy()
    result[..., :3] = np.where((weight > 0)[..., None], from_oklch(out), pixels[..., :3])
    return result if _succeeded(pixels, result, source, target) else None


def _succeeded(pixels: NDArray[np.uint8], result: NDArray[np.uint8], source: str, target: str) -> bool:
    before, after = shares(pixels)[0], shares(result)[0]
    was, now = COLOURS.index(source), COLOURS.index(target)
    if after[now] - before[now] < 0.7 * before[was] or after[was] > 0.35 * before[was]:
        return False
    if target not in HUES:
        return True
    return dominant_colour(result, least=0.45) == target
