"""Sheets of the gallery: pictures in a grid, each over its label. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

__all__ = ["SIDE", "fitted", "framed", "save", "sheet"]

SIDE, LABEL, COLUMNS = 96, 30, 8
LIGHT, DARK = (255, 255, 255), (224, 224, 228)


def fitted(pixels: npt.NDArray[np.uint8], side: int = SIDE) -> Image.Image:
    """A picture, uint8 (H, W, 1, 3 or 4), at ``side`` pixels' height; what is transparent shows a chequered board."""
    image = Image.fromarray(pixels)
    size = max(1, round(side * image.width / image.height)), side
    kind = Image.Resampling.LANCZOS if image.height < side * 4 else Image.Resampling.BOX
    image = image.resize(size, kind)
    if image.mode != "RGBA":
        return image.convert("RGB")
    y, x = np.mgrid[: size[1], : size[0]] // 8
    board = np.where(((x + y) % 2)[..., None], np.uint8(DARK), np.uint8(LIGHT))
    return Image.alpha_composite(Image.fromarray(board).convert("RGBA"), image).convert("RGB")


def framed(picture: Image.Image) -> Image.Image:
    """With a thin line around it, which says that it was given, and where white paper ends."""
    return ImageOps.expand(ImageOps.crop(picture, 1), 1, "#999")


def sheet(pictures: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """Pictures in rows of up to eight small ones or fewer large ones, each over its label in at most two lines."""
    wide, high = max(p.width for p in pictures) + 12, max(p.height for p in pictures) + LABEL + 6
    columns = min(len(pictures), max(1, COLUMNS * (SIDE + 12) // wide))
    made = Image.new("RGB", (columns * wide, -(-len(pictures) // columns) * high), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(10.5)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % columns * wide + 6, number // columns * high + 4
        made.paste(picture, (x + (wide - 12 - picture.width) // 2, y))
        for line, part in enumerate(_wrap(draw, label, font, wide - 4)):
            left = x + (wide - 12 - draw.textlength(part, font=font)) / 2
            draw.text((left, y + high - LABEL - 4 + 12 * line), part, fill="#444", font=font)
    return made


def save(picture: Image.Image, path: Path) -> None:
    """As WebP."""
    picture.save(path, quality=88, method=6)


def _wrap(
    draw: ImageDraw.ImageDraw, label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines = [""]
    for word in label.split():
        wider = f"{lines[-1]} {word}".strip()
        if draw.textlength(wider, font=font) <= width:
            lines[-1] = wider
        else:
            lines.append(word)
    return lines[:2]
