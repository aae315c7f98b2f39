"""The pack's drawings of one set again, as if with a blue pencil on paper: a style for a model to learn later.

Ids and captions are those of the pack, so what is held out there is held out here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageMath, ImageOps

from .pack import open_pack, write_pack
from .recipe import Progress, attributions, prepare

__all__ = ["pencil_attributions", "pencilled", "prepare_pencil"]

PAPER, INK = (250, 244, 226), (28, 46, 110)

SOURCE = "noto"
"""The set that is drawn again."""


def pencilled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a pencil makes of a picture, uint8 [H, W, 4]: dark where its grey is darker than that around it."""
    picture = Image.fromarray(pixels)
    grey = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("L")
    around = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(3))
    line = ImageMath.lambda_eval(
        lambda a: a["min"](a["grey"] * 255 / (256 - a["around"]), 255), grey=grey, around=around
    ).convert("L")
    drawn = ImageOps.colorize(ImageChops.multiply(line, line), INK, PAPER)
    return np.asarray(drawn.convert("RGBA"))


def prepare_pencil(cache: Path, progress: Progress) -> Path:
    """Build the pack of pencil drawings under `cache`, or return it where it is there already; the pack is made first.

    Raises:
        PerrinError: a source cannot be fetched or is not the pinned file.
    """
    folder = cache / "pack-pencil"
    if (folder / "report.json").exists():
        return folder
    pack = open_pack(prepare(cache, progress))
    chosen = [i for i, record in enumerate(pack.records) if record.style == SOURCE and not record.recoloured]
    pictures = []
    for done, index in enumerate(chosen):
        pictures.append(pencilled(np.array(pack.pictures[index])))
        progress(done, len(chosen), "drawing with a pencil")
    records = [replace(pack.records[index], colour=None, weight=1.0) for index in chosen]
    text = f"{len(records)} pictures of {SOURCE}, drawn with a pencil\n"
    return write_pack(folder, np.stack(pictures), records, {"pictures": len(records)}, text)


def pencil_attributions() -> list[tuple[str, str, str, str]]:
    """Package, version, licence and attribution line of what was drawn again, and of what captions are made with."""
    return [row for row in attributions() if row[0].endswith(f"({SOURCE})") or row[0].startswith("emoji")]
