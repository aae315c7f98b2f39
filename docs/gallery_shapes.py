"""Draws what `bricks-and-furniture` makes of captions, at fixed seeds, still and turning: pictures of docs/shapes.md.

python docs/gallery_shapes.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageSequence

import perrin
from perrin_shape.pictures import preview, turntable

PICTURES = Path(__file__).parent / "pictures"
CELL, SEEDS = 200, (7,)
TURNING, FRAMES = 128, 24
CAPTIONS = (
    "a chair", "an armchair", "a table", "a lamp", "a sofa", "a bed", "a plant", "a bottle",
    "brick 2 x 4", "plate 2 x 4", "slope brick 45 2 x 2", "a wheel", "technic gear 24 tooth", "technic beam 5",
    "brick 1 x 4 x 2", "oak chair",
)  # fmt: skip
"""The last two are among the captions that were held out."""


def main() -> None:
    """Write the picture."""
    generate = perrin.load("shape", device="cpu")
    columns = 8
    rows = len(CAPTIONS) // columns
    page = Image.new("RGB", (columns * CELL, rows * (len(SEEDS) * CELL + 22)), "white")
    draw = ImageDraw.Draw(page)
    turning = [Image.new("RGB", (columns * TURNING, rows * TURNING), "white") for _ in range(FRAMES)]
    for k, caption in enumerate(CAPTIONS):
        left, top = k % columns * CELL, k // columns * (len(SEEDS) * CELL + 22)
        draw.text((left + 8, top + 4), caption, fill=(60, 60, 60), font_size=14)
        for row, seed in enumerate(SEEDS):
            cloud = generate(caption, seed=seed, points=8192)[0].value.cloud
            picture = Image.open(io.BytesIO(preview(cloud, CELL)))
            page.paste(picture.convert("RGB"), (left, top + 22 + row * CELL))
        turned = Image.open(io.BytesIO(turntable(cloud, TURNING, FRAMES)))
        for frame, sheet in zip(ImageSequence.Iterator(turned), turning, strict=True):
            sheet.paste(frame.convert("RGB"), (k % columns * TURNING, k // columns * TURNING))
    page.save(PICTURES / "shapes.webp", quality=70, method=6)
    turning[0].save(
        PICTURES / "shapes-turning.webp", save_all=True, append_images=turning[1:], duration=83, loop=0, quality=60
    )


if __name__ == "__main__":
    main()
