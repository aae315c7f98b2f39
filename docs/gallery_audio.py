"""Makes the sounds of docs/audio.md at fixed seeds, good and bad, and the picture of their spectrograms.

python docs/gallery_audio.py [FOLDER]     # FOLDER gets the sounds too
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import perrin
from perrin_audio.mel import Mel
from perrin_audio.pictures import sound_picture

PICTURE = Path(__file__).parent / "pictures" / "audio.webp"
COLUMNS, SEED = 4, 7

PROMPTS = (
    "violin, note A4, loud", "grand piano, note C4, loud", "flute, note E5, soft", "trumpet, note G4, loud, short",
    "church organ, note C3, loud", "nylon guitar, note A3, loud", "choir, note C4, medium", "marimba, arpeggio from C4",
    "violin, scale up from A4", "celesta, trill from C5", "bass drum, klub", "closed hi-hat, loud",
)  # fmt: skip


def main() -> None:
    """One sound a prompt; nothing is picked."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    generate = perrin.load("audio", device="cpu")
    tiles = []
    for prompt in PROMPTS:
        made = generate(prompt, seed=SEED)[0]
        if len(sys.argv) > 1:
            made.save(Path(sys.argv[1]) / f"{prompt.replace(', ', '-').replace(' ', '-')}.wav")
        picture = np.asarray(sound_picture(Mel(), torch.from_numpy(made.value.sound)))
        tile = Image.new("RGB", (picture.shape[1] + 8, picture.shape[0] + 26), "white")
        tile.paste(Image.fromarray(picture), (4, 22))
        ImageDraw.Draw(tile).text((6, 5), prompt, "black")
        tiles.append(tile)
    wide, high = tiles[0].size
    sheet = Image.new("RGB", (wide * COLUMNS, high * -(-len(tiles) // COLUMNS)), "white")
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (n % COLUMNS * wide, n // COLUMNS * high))
    sheet.save(PICTURE, quality=85, method=6)


if __name__ == "__main__":
    main()
