"""A folder of pictures in a style of its own, to train on: emoji of the project's data, drawn with a blue pencil.

::

    python examples/own_style.py ~/pencil      # 530 drawings with captions; fetches the project's data the first time
    perrin train examples/own_style.yaml --set data.folder=~/pencil       # five minutes
    perrin models add ~/.local/share/perrin/training/pencil/model
    perrin generate image "rocket" --model pencil
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter, ImageMath, ImageOps
from rich.progress import track

from perrin.settings import Settings
from perrin_image.data import open_pack, prepare

PAPER, INK = (250, 244, 226), (28, 46, 110)


def drawn(picture: Image.Image) -> Image.Image:
    """What a pencil makes of a picture (RGBA): dark where its grey is darker than that around it."""
    white = Image.new("RGBA", picture.size, "white")
    grey = Image.alpha_composite(white, picture).convert("L")
    around = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(3))
    line = ImageMath.lambda_eval(
        lambda a: a["min"](a["grey"] * 255 / (256 - a["around"]), 255), grey=grey, around=around
    )
    line = ImageChops.multiply(line.convert("L"), line.convert("L"))
    return ImageOps.colorize(line, INK, PAPER)


def main() -> None:
    """Draw."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "~/pencil").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    pack = open_pack(prepare(Settings().home_path / "data" / "image", lambda done, total, label: None))
    chosen = [i for i, record in enumerate(pack.records) if record.style == "noto" and not record.recoloured][::3][:600]
    lines = []
    for index in track(chosen, f"drawing into {out}"):
        name = f"{index}.png"
        drawn(Image.fromarray(pack.pictures[index])).save(out / name)
        lines.append(json.dumps({"file_name": name, "text": pack.records[index].captions[0]}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
