"""Draws what `qm9` makes at fixed seeds, good and bad: the pictures of docs/molecules.md.

python docs/gallery_molecules.py
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rdkit import Chem
from rdkit.Chem import AllChem

import perrin
from perrin_molecule.checks import Made
from perrin_molecule.writing import drawing

PICTURES = Path(__file__).parent / "pictures"

CELL = 220
"""Pixels of a molecule, flat or in space."""

ATOMS = {"H": (0.24, (238, 238, 238)), "C": (0.36, (90, 90, 90)), "N": (0.36, (60, 90, 220)),
         "O": (0.36, (220, 50, 40)), "F": (0.34, (90, 180, 60))}  # fmt: skip
"""Radius in angstrom, and colour."""

STICK = 0.11


def balls(molecule: Any, fixed: int = 0) -> Image.Image:
    """Balls and sticks seen along the molecule's thinnest axis, lit from the upper left; the first ``fixed`` atoms
    have a yellow rim."""
    places = molecule.GetConformer().GetPositions()
    axes = np.linalg.svd(places - places.mean(0))[2]
    places = (places - places.mean(0)) @ axes.T
    scale = CELL / (2 * np.abs(places[:, :2]).max() + 1.4)
    depth = np.full((CELL, CELL), -np.inf)
    canvas = np.full((CELL, CELL, 3), 255.0)
    y, x = np.mgrid[:CELL, :CELL]
    x, y = (x + 0.5 - CELL / 2) / scale, (CELL / 2 - y - 0.5) / scale

    def ball(centre: Any, radius: float, colour: Any, rim: bool = False) -> None:
        inside = radius**2 - (x - centre[0]) ** 2 - (y - centre[1]) ** 2
        height = np.sqrt(inside.clip(0))
        z = centre[2] + height
        seen = (inside > 0) & (z > depth)
        light = ((centre[0] - x) * 0.5 + (y - centre[1]) * 0.5 + height * 0.7) / radius
        shade = np.asarray(colour) * (0.35 + 0.65 * light.clip(0))[..., None] + 60 * (light.clip(0) ** 20)[..., None]
        if rim:
            shade = np.where((inside < 0.25 * radius**2)[..., None], (240, 190, 30), shade)
        canvas[seen], depth[seen] = shade[seen].clip(0, 255), z[seen]

    for bond in molecule.GetBonds():
        ends = places[bond.GetBeginAtomIdx()], places[bond.GetEndAtomIdx()]
        for share in np.linspace(0, 1, 24):
            ball(ends[0] * (1 - share) + ends[1] * share, STICK, (170, 170, 170))
    for number, (place, atom) in enumerate(zip(places, molecule.GetAtoms(), strict=True)):
        radius, colour = ATOMS[atom.GetSymbol()]
        ball(place, radius, colour, rim=number < fixed)
    return Image.fromarray(canvas.astype(np.uint8))


def sheet(made: list[Made], columns: int, fixed: int = 0) -> Image.Image:
    """Each molecule flat, and under it in space."""
    flat = Image.open(io.BytesIO(drawing([one.molecule for one in made], [_name(one) for one in made]))).convert("RGB")
    rows = -(-len(made) // columns)
    whole = Image.new("RGB", (CELL * columns, 2 * CELL * rows), "white")
    for number, one in enumerate(made):
        row, column = divmod(number, columns)
        box = (CELL * column, CELL * row, CELL * (column + 1), CELL * (row + 1))
        whole.paste(flat.crop(box), (CELL * column, 2 * CELL * row))
        whole.paste(balls(one.molecule, fixed), (CELL * column, 2 * CELL * row + CELL))
    return whole


def _name(one: Made) -> str:
    return one.formula if one.sound else "not sound"


def furan() -> str:
    """Furan without its hydrogens, as an SDF."""
    whole = Chem.AddHs(Chem.MolFromSmiles("c1ccoc1"))
    AllChem.EmbedMolecule(whole, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(whole)
    bare = Chem.RemoveHs(whole)
    Chem.Kekulize(bare)
    return Chem.MolToMolBlock(bare)


def ends() -> str:
    """A nitrile and an alcohol, six bonds apart, as an SDF."""
    whole = Chem.AddHs(Chem.MolFromSmiles("N#CCCCCO"))
    AllChem.EmbedMolecule(whole, randomSeed=2)
    AllChem.MMFFOptimizeMolecule(whole)
    cut = Chem.RWMol(whole)
    for index in reversed(range(whole.GetNumAtoms())):
        if index not in (0, 1, 5, 6):
            cut.RemoveAtom(index)
    return Chem.MolToMolBlock(cut.GetMol(), kekulize=False)


def main() -> None:
    """A row as they come and one of a formula; a ring completed, and two ends joined. Nothing is picked."""
    generate = perrin.load("molecule", device="cpu")
    made: list[Made] = [item.value for item in generate(seed=11, count=5)]
    made += [item.value for item in generate(seed=3, count=5, formula="C7H10O2")]
    sheet(made, 5).save(PICTURES / "molecules.webp", quality=88, method=6)
    for name, block, fixed in (("scaffold", furan(), 5), ("linker", ends(), 4)):
        found = [item.value for item in generate(fragment=block.encode(), seed=4, count=5)]
        sheet(found, 5, fixed).save(PICTURES / f"molecules-{name}.webp", quality=88, method=6)


if __name__ == "__main__":
    main()
