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

from PIL import Image
from rich.progress import track

from perrin.settings import Settings
from perrin_image.data import open_pack, prepare
from perrin_image.data.pencil import pencilled


def main() -> None:
    """Draw."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "~/pencil").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    pack = open_pack(prepare(Settings().home_path / "data" / "image", lambda done, total, label: None))
    chosen = [i for i, record in enumerate(pack.records) if record.style == "noto" and not record.recoloured][::3][:600]
    lines = []
    for index in track(chosen, f"drawing into {out}"):
        name = f"{index}.png"
        Image.fromarray(pencilled(pack.pictures[index])).save(out / name)
        lines.append(json.dumps({"file_name": name, "text": pack.records[index].captions[0]}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
