"""Makes the sounds of docs/audio.md at fixed seeds, good and bad, the picture of them, and the page that plays them.

python docs/gallery_audio.py
"""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import perrin
from perrin_audio.mel import Mel
from perrin_audio.pictures import sound_picture

DOCS = Path(__file__).parent
PICTURE, SOUNDS, PAGE = DOCS / "pictures" / "audio.webp", DOCS / "sounds", DOCS / "audio-gallery.html"
COLUMNS, SEED = 4, 7

PROMPTS = (
    "violin, note A4, loud", "grand piano, note C4, loud", "flute, note E5, soft", "trumpet, note G4, loud, short",
    "church organ, note C3, loud", "nylon guitar, note A3, loud", "choir, note C4, medium", "marimba, arpeggio from C4",
    "violin, scale up from A4", "celesta, trill from C5", "bass drum, klub", "closed hi-hat, loud",
)  # fmt: skip

HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Perrin: sounds</title>
<style>
body { font: 15px/1.4 sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em; color: #222 }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; padding: 0 }
li { list-style: none } audio, img { width: 100% }
</style>
<h1>Twelve captions at one seed</h1>
<p>By <code>instruments</code>, seed 7, nothing picked. Made by <code>python docs/gallery_audio.py</code>.</p>
"""


def main() -> None:
    """One sound a prompt; nothing is picked."""
    SOUNDS.mkdir(exist_ok=True)
    generate = perrin.load("audio", device="cpu")
    tiles, players = [], []
    for prompt in PROMPTS:
        made = generate(prompt, seed=SEED)[0]
        name = prompt.replace(", ", "-").replace(" ", "-") + ".ogg"
        made.save(SOUNDS / name)
        said = html.escape(prompt)
        players.append(f'<li>{said}<audio controls preload="none" src="sounds/{name}"></audio></li>')
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
    picture_of_all = '<img src="pictures/audio.webp" alt="Their spectrograms above their waveforms">\n'
    PAGE.write_text(HEAD + "<ul>\n" + "\n".join(players) + "\n</ul>\n" + picture_of_all)


if __name__ == "__main__":
    main()
