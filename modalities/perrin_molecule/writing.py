"""Molecules as files: SDF with the report of each, XYZ, SMILES, a picture of drawings, the reports as a table, or one
that turns.

The same molecules and metadata give the same bytes: nothing here writes the time of day.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from perrin_molecule.checks import Made
from perrin_molecule.turning import turning

__all__ = ["drawing", "write"]

CELL = 220
"""Pixels of a drawing in the picture."""

MOST_COLUMNS = 5

HEADER = f"  {'Perrin':8}{'':10}3D"
"""Second line of a molecule in an SDF: initials, program, date and time (none), dimensions."""


def write(made: Sequence[Made], media_type: str, metadata: Mapping[str, Any]) -> bytes:
    """All of ``made`` in one file.

    Args:
        made: the molecules.
        media_type: a key of `WRITERS`.
        metadata: how they were made.
    """
    return WRITERS[media_type](made, json.dumps(metadata, sort_keys=True, ensure_ascii=True))


def _sdf(made: Sequence[Made], metadata: str) -> bytes:
    from rdkit import Chem

    parts = []
    for number, one in enumerate(made, 1):
        block = Chem.MolToMolBlock(one.molecule, kekulize=True, includeStereo=one.valid).split("\n")
        block[0], block[1], block[2] = one.smiles or one.formula, HEADER, ""
        parts += ["\n".join(block).rstrip("\n")]
        said = {"number": str(number), **{name: text for name, text in one.fields.items() if text}}
        said["perrin"] = metadata
        parts += [f"> <{name}>\n{text}\n" for name, text in said.items()]
        parts += ["$$$$"]
    return ("\n".join(parts) + "\n").encode()


def _xyz(made: Sequence[Made], metadata: str) -> bytes:
    lines = []
    for one in made:
        places = one.molecule.GetConformer().GetPositions()
        lines += [str(len(places)), f"smiles={one.smiles or '-'} perrin={metadata}"]
        symbols = [atom.GetSymbol() for atom in one.molecule.GetAtoms()]
        lines += [f"{s:2}" + "".join(f" {v:12.6f}" for v in place) for s, place in zip(symbols, places, strict=True)]
    return ("\n".join(lines) + "\n").encode()


def _smiles(made: Sequence[Made], metadata: str) -> bytes:
    lines = [f"{one.smiles} {number}" for number, one in enumerate(made, 1) if one.smiles]
    return ("\n".join([f"# perrin={metadata}", *lines]) + "\n").encode()


def _table(made: Sequence[Made], metadata: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["number", *made[0].fields]
    writer.writerow(names)
    for number, one in enumerate(made, 1):
        writer.writerow([number, *one.fields.values()])
    return stream.getvalue().encode()


def _picture(made: Sequence[Made], metadata: str) -> bytes:
    from PIL import Image, PngImagePlugin

    data = drawing([one.molecule for one in made], [one.formula if one.valid else "not valid" for one in made])
    text = PngImagePlugin.PngInfo()
    text.add_text("perrin", metadata)
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def drawing(molecules: Sequence[Any], legends: Sequence[str] | None = None, cell: int = CELL) -> bytes:
    """A PNG of structural formulas, hydrogens on carbon left out, several in a row."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    quiet = rdBase.BlockLogs()  # while it lives
    flat = []
    for molecule in molecules:
        try:
            shown = Chem.RemoveHs(molecule)
            Chem.Kekulize(shown, clearAromaticFlags=True)
        except (ValueError, RuntimeError):  # not valid: with all that it has
            shown = Chem.Mol(molecule)
            shown.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(shown)
        rdDepictor.Compute2DCoords(shown)
        flat.append(shown)
    columns = min(len(flat), MOST_COLUMNS)
    rows = math.ceil(len(flat) / columns)
    canvas = rdMolDraw2D.MolDraw2DCairo(cell * columns, cell * rows, cell, cell)
    options: Any = canvas.drawOptions()
    options.prepareMolsBeforeDrawing = False
    options.legendFontSize = 14
    canvas.DrawMolecules(flat, legends=list(legends or [""] * len(flat)))
    canvas.FinishDrawing()
    del quiet
    return bytes(canvas.GetDrawingText())


def _turning(made: Sequence[Made], metadata: str) -> bytes:
    return turning(made[0].molecule, json.loads(metadata))


WRITERS = {
    "chemical/x-mdl-sdfile": _sdf,
    "chemical/x-xyz": _xyz,
    "chemical/x-daylight-smiles": _smiles,
    "image/png": _picture,
    "text/csv": _table,
    "image/gif": _turning,
}
"""How each media type is written."""
