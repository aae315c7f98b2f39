"""A contact sheet: pictures of a pack over white, each above its first captions, for the eye to check what the
numbers cannot."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .pack import Record, open_pack

__all__ = ["contact_sheet"]

_CELL = (150, 128)


def contact_sheet(
    pack: Path,
    path: Path,
    n: int = 80,
    *,
    seed: int = 0,
    only: Callable[[Record], bool] | None = None,
    columns: int = 10,
) -> Path:
    """Draw `n` random records of a pack into a PNG.

    Args:
        pack: folder of the pack.
        path: the PNG to write.
        n: how many, at most.
        seed: of the choice.
        only: which records are to be drawn from.
        columns: cells in a row.

    Returns:
        `path`. Raises InvalidInput where the pack is not complete.
    """
    opened = open_pack(pack)
    able = [i for i, record in enumerate(opened.records) if only is None or only(record)]
    chosen = random.Random(seed).sample(able, min(n, len(able)))
    width, height = _CELL
    sheet = Image.new("RGB", (columns * width, max(1, -(-len(chosen) // columns)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(chosen):
        x, y = place % columns * width, place // columns * height
        picture = Image.fromarray(np.asarray(opened.pictures[index]))
        sheet.paste(picture, (x + (width - 64) // 2, y + 2), picture)
        record = opened.records[index]
        lines = [f"{record.style}: {record.colour or '-'}", *record.captions[:4]]
        for line, text in enumerate(lines):
            draw.text((x + 3, y + 66 + 12 * line), text[:25], fill="black" if line else "gray", font_size=10)
    sheet.save(path)
    return path
