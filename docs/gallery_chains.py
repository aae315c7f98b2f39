"""Draws what every step of the chains that ship made: docs/pictures/chains.webp, one row a chain.

python docs/gallery_chains.py [FOLDER]

FOLDER: what `examples/chains.py` has saved; without it, the chains are made first.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from gallery_sheet import save
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from perrin.chains import chains

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

SIDE, GAP, LABEL = 132, 8, 34
FEW = 4
"""Frames of a clip that are shown, two beside each other."""


def pictures(path: Path) -> list[Image.Image]:
    """What a file shows: a picture, or frames of a clip; of a sound its spectrogram."""
    if path.suffix in (".mp4", ".webm"):
        with av.open(str(path)) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
    elif path.suffix in (".wav", ".flac"):
        return [_spectrogram(path.read_bytes())]
    else:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(path))]
    chosen = np.linspace(0, len(frames) - 1, FEW).round().astype(int) if len(frames) > 1 else [0]
    return [frames[number] for number in chosen]


def _spectrogram(data: bytes) -> Image.Image:
    from perrin_dashboard.sounds import spectrogram

    picture = spectrogram(data)
    assert picture is not None
    return Image.open(io.BytesIO(picture)).convert("RGB")


def cell(path: Path) -> Image.Image:
    """A square: one picture, or four smaller ones."""
    shown = pictures(path)
    if len(shown) == 1:
        return shown[0].resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    made = Image.new("RGB", (SIDE, SIDE), "#bbb")
    half = SIDE // 2
    for number, picture in enumerate(shown):
        small = picture.resize((half - 1, half - 1), Image.Resampling.LANCZOS)
        made.paste(small, (number % 2 * (half + 1), number // 2 * (half + 1)))
    return made


def main(folder: Path) -> None:
    """One row a chain, each step over its name."""
    rows = {name: chain for name, chain in chains().items() if any(folder.glob(f"{name}-*"))}
    wide = max(len(chain.jobs) for chain in rows.values())
    made = Image.new("RGB", (wide * (SIDE + 2 * GAP + 12), len(rows) * (SIDE + LABEL + GAP)), "white")
    draw, font, small = ImageDraw.Draw(made), ImageFont.load_default(11), ImageFont.load_default(10)
    for row, (name, chain) in enumerate(rows.items()):
        for column, job in enumerate(chain.jobs):
            (path,) = folder.glob(f"{name}-{job['name']}.*")
            x, y = column * (SIDE + 2 * GAP + 12) + GAP, row * (SIDE + LABEL + GAP) + GAP
            made.paste(cell(path), (x, y))
            draw.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline="#ccc")
            said = job.get("parameters", {}).get("prompt") or job.get("parameters", {}).get("formula", "")
            draw.text((x, y + SIDE + 3), f"{job['modality']}: {job['name']}", fill="#222", font=font)
            draw.text((x, y + SIDE + 16), str(said)[:30], fill="#777", font=small)
            if column:
                left, right, middle = x - 2 * GAP - 9, x - 5, y + SIDE // 2
                draw.line((left, middle, right, middle), fill="#777", width=1)
                draw.line((right - 4, middle - 4, right, middle, right - 4, middle + 4), fill="#777", width=1)
    save(made, HERE / "pictures" / "chains.webp")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        import chains as example

        with tempfile.TemporaryDirectory() as made_in:
            example.main(Path(made_in))
            main(Path(made_in))
