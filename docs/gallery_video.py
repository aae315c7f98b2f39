"""Draws what `emoji-motion` makes of the 40 held-out combinations at the committed seed: the picture of docs/video.md.

python docs/gallery_video.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

import perrin
from perrin_video.clips import held_out

PICTURE = Path(__file__).parent / "pictures" / "video.webp"

SIDE, GAP, LABEL, SHOWN = 64, 2, 14, 8


def main() -> None:
    """Two clips a row, eight of the sixteen frames of each; nothing is picked."""
    generate = perrin.load("video", device="cpu")
    entries = held_out()
    wide, high = SHOWN * (SIDE + GAP) + 12, SIDE + LABEL + 4
    sheet = Image.new("RGB", (2 * wide, (len(entries) + 1) // 2 * high), "white")
    draw = ImageDraw.Draw(sheet)
    for number, entry in enumerate(entries):
        x, y = number % 2 * wide, number // 2 * high
        draw.text((x + 2, y), entry["caption"], fill="#444")
        frames = generate(entry["caption"], seed=7, size=SIDE)[0].value.frames
        for place, frame in enumerate(frames[:: len(frames) // SHOWN]):
            sheet.paste(Image.fromarray(frame), (x + place * (SIDE + GAP), y + LABEL))
    sheet.save(PICTURE, quality=80, method=6)


if __name__ == "__main__":
    main()
