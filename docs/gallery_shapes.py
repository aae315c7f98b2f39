"""Draws what `bricks-and-furniture` makes of captions, at one seed: clouds, and their meshes, which turn as well.

python docs/gallery_shapes.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageSequence

import perrin
from perrin_shape.pictures import preview, turntable
from perrin_shape.surface import reconstruct

PICTURES = Path(__file__).parent / "pictures"
CELL, TITLE, SEED = 200, 22, 7
TURNING, FRAMES = 128, 24
CAPTIONS = (
    "a chair", "an armchair", "a table", "a lamp", "a sofa", "a bed", "a plant", "a bottle",
    "brick 2 x 4", "plate 2 x 4", "slope brick 45 2 x 2", "a wheel", "technic gear 24 tooth", "technic beam 5",
    "brick 1 x 4 x 2", "oak chair",
)  # fmt: skip
"""The last two are among the captions that were held out."""


def main() -> None:
    """Write the pictures of docs/shapes.md."""
    generate = perrin.load("shape", device="cpu")
    columns = 8
    rows = len(CAPTIONS) // columns
    clouds, meshes = (Image.new("RGB", (columns * CELL, rows * (CELL + TITLE)), "white") for _ in range(2))
    turning = [Image.new("RGB", (columns * TURNING, rows * TURNING), "white") for _ in range(FRAMES)]
    for k, caption in enumerate(CAPTIONS):
        across, down = k % columns, k // columns
        cloud = generate(caption, seed=SEED, points=8192)[0].value.cloud
        mesh = reconstruct(cloud)
        for page, thing in ((clouds, cloud), (meshes, mesh)):
            left, top = across * CELL, down * (CELL + TITLE)
            ImageDraw.Draw(page).text((left + 8, top + 4), caption, fill=(60, 60, 60), font_size=14)
            page.paste(Image.open(io.BytesIO(preview(thing, CELL))).convert("RGB"), (left, top + TITLE))
        turned = Image.open(io.BytesIO(turntable(mesh, TURNING, FRAMES)))
        for frame, sheet in zip(ImageSequence.Iterator(turned), turning, strict=True):
            sheet.paste(frame.convert("RGB"), (across * TURNING, down * TURNING))
    clouds.save(PICTURES / "shapes-clouds.webp", quality=70, method=6)
    meshes.save(PICTURES / "shapes.webp", quality=80, method=6)
    turning[0].save(
        PICTURES / "shapes-turning.webp", save_all=True, append_images=turning[1:], duration=83, loop=0, quality=60
    )


if __name__ == "__main__":
    main()
