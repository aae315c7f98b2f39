"""Pictures between tensors and pixels.

A model's picture is four channels in [-1, 1]: colour composited on white, and alpha.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["CHANNELS", "Pixels", "grid_of", "on", "over", "to_pixels", "to_tensor", "transparent"]

Pixels = npt.NDArray[np.uint8]

CHANNELS = 4
"""Of a picture in a tensor: colour, and alpha."""

WHITE = (255, 255, 255)

HAZE = 6
"""So far from 0 and 255 a model's alpha strays where it means them."""


def to_pixels(x: Tensor) -> Pixels:
    """(B, C, H, W) in [-1, 1] to uint8 (B, H, W, C), rounded to the nearest."""
    scaled = (x.detach().float().cpu().clamp(-1, 1) + 1) * 127.5
    out: Pixels = scaled.round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return out


def to_tensor(pixels: Pixels) -> Tensor:
    """Straight-alpha uint8 (B, H, W, 4) to float32 (B, 4, H, W) in [-1, 1]: colour over white, and alpha."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    colour, alpha = x[:, :3], x[:, 3:]
    return torch.cat([colour * alpha + (1 - alpha), alpha], dim=1) * 2 - 1


def transparent(pixels: Pixels) -> Pixels:
    """Colour over white plus alpha (H, W, 4) to straight-alpha RGBA: undoes the compositing on white.

    Alpha within `HAZE` of nothing or all becomes that, and what lies between is stretched.
    """
    alpha = pixels[..., 3:].astype(np.float32) / 255
    white = pixels[..., :3].astype(np.float32) / 255
    colour = np.where(alpha > 1 / 255, (white - (1 - alpha)) / np.maximum(alpha, 1 / 255), 1.0)
    clear = ((alpha * 255 - HAZE) / (255 - 2 * HAZE)).clip(0, 1)
    straight: Pixels = (np.concatenate([colour.clip(0, 1), clear], axis=-1) * 255).round().astype(np.uint8)
    return straight


def on(pixels: Pixels, background: str) -> Pixels:
    """A model's picture, colour over white plus alpha (H, W, 4), on a background: see `over`."""
    if background == "white":
        return pixels[..., :3]
    return over(transparent(pixels), background)


def over(pixels: Pixels, background: str) -> Pixels:
    """Straight-alpha pictures (..., H, W, 4) on a background.

    Args:
        pixels: uint8.
        background: ``white`` or a colour such as ``#ffcc00``, for three channels; ``transparent``, for all four as they
            are.
    """
    if background == "transparent":
        return pixels
    colour = WHITE if background == "white" else tuple(bytes.fromhex(background[1:]))
    alpha = pixels[..., 3:].astype(np.float32) / 255
    mixed = pixels[..., :3] * alpha + np.asarray(colour, np.float32) * (1 - alpha)
    rounded: Pixels = mixed.round().astype(np.uint8)
    return rounded


def grid_of(pixels: Pixels, columns: int, gap: int = 2) -> Pixels:
    """Pictures (B, H, W, C) side by side on white, the first three channels: uint8 (rows, width, 3)."""
    count, height, width = pixels.shape[:3]
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, picture in enumerate(pixels):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture[..., :3]
    return sheet
