"""Draws what `qm9` makes at fixed seeds, good and bad: the picture of docs/molecules.md.

python docs/gallery_molecules.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

import perrin
from perrin_molecule.checks import Made
from perrin_molecule.writing import drawing

PICTURE = Path(__file__).parent / "pictures" / "molecules.webp"


def main() -> None:
    """Two rows as they come, one of a formula; nothing is picked."""
    generate = perrin.load("molecule", device="cpu")
    made: list[Made] = [item.value for item in generate(seed=11, count=10)]
    made += [item.value for item in generate(seed=3, count=5, formula="C7H10O2")]
    data = drawing([one.molecule for one in made], [one.formula if one.sound else "not sound" for one in made])
    Image.open(io.BytesIO(data)).convert("RGB").save(PICTURE, quality=88, method=6)


if __name__ == "__main__":
    main()
