"""Molecules of SDF files, as the dashboard reads and draws them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from perrin_dashboard.molecules import COLOURS, figure, read_sdf

ETHYNE = """ethyne
  Perrin          3D

  4  3  0  0  0  0  0  0  0  0999 V2000
   -0.6000    0.0000    0.0000 C   0  0
    0.6000    0.0000    0.0000 C   0  0
   -1.6600    0.0000    0.0000 H   0  0
    1.6600    0.0000    0.0000 H   0  0
  1  2  3  0
  1  3  1  0
  2  4  1  0
M  END
> <smiles>
C#C

> <strain>
1.25

$$$$
"""


def test_atoms_bonds_and_words_are_read() -> None:
    broken = "nothing\n\n\n  9  9\n$$$$\n"
    first, second = read_sdf((ETHYNE + broken + ETHYNE.replace("\n", "\r\n")).encode())
    assert first == second
    assert first.name == "ethyne"
    assert [element for element, _ in first.atoms] == ["C", "C", "H", "H"]
    assert first.atoms[3][1] == (1.66, 0.0, 0.0)
    assert first.bonds == ((0, 1, 3), (0, 2, 1), (1, 3, 1))
    assert first.fields == {"smiles": "C#C", "strain": "1.25"}
    assert read_sdf(b"\x00\xff") == []


def test_a_picture_has_a_ball_for_each_atom_and_a_line_for_each_order() -> None:
    (solid,) = read_sdf(ETHYNE.encode())
    drawn: Any = figure(solid)
    *sticks, balls = drawn.data
    assert list(balls.text) == ["C1", "C2", "H3", "H4"]
    assert list(balls.marker.color) == [COLOURS["C"], COLOURS["C"], COLOURS["H"], COLOURS["H"]]
    ends = {stick.line.color: sum(value is None for value in stick.x) for stick in sticks}
    assert ends == {COLOURS["C"]: 8, COLOURS["H"]: 2}  # halves: three lines and two more in carbon's, two in hydrogen's
    carbon = next(stick for stick in sticks if stick.line.color == COLOURS["C"])
    triple = [(y, z) for x, y, z in zip(carbon.x, carbon.y, carbon.z, strict=True) if x == pytest.approx(-0.6)]
    assert max(math.hypot(*place) for place in triple) == pytest.approx(0.18)


def test_what_the_molecule_modality_writes_can_be_drawn() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("rdkit")
    from perrin_molecule.checks import results
    from perrin_molecule.metrics import Molecule
    from perrin_molecule.writing import write

    corners = [[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]
    places = 0.63 * torch.tensor([[0.0, 0, 0], *corners])
    bonds = torch.zeros(10, dtype=torch.long)
    bonds[[0, 1, 3, 6]] = 1
    made = results([Molecule(places, torch.tensor([1, 0, 0, 0, 0]), bonds)])
    (solid,) = read_sdf(write(made, "chemical/x-mdl-sdfile", {"seed": 1}))
    assert (len(solid.atoms), len(solid.bonds)) == (5, 4)
    assert (solid.fields["smiles"], solid.fields["stable"], solid.fields["posebusters"]) == ("C", "yes", "passed")
    assert len(figure(solid).data) == 3
