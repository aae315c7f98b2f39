"""Molecules completed around atoms that are given: what is kept, what is refused, from Python and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from precision import exactly
from rdkit import Chem
from rdkit.Chem import AllChem

import perrin
from perrin.cli import main
from perrin.errors import InvalidInput
from perrin_molecule.face import modality
from perrin_molecule.given import read_fragment
from perrin_molecule.parts import chosen


def conformer(smiles: str) -> Any:
    """A molecule with its hydrogens in space."""
    whole = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(whole, randomSeed=1) == 0
    AllChem.MMFFOptimizeMolecule(whole)
    return whole


def part(molecule: Any, keep: Callable[[Any], bool]) -> Any:
    """Some atoms of a molecule, where they were."""
    cut = Chem.RWMol(molecule)
    Chem.Kekulize(cut, clearAromaticFlags=True)
    for atom in reversed([*molecule.GetAtoms()]):
        if not keep(atom):
            cut.RemoveAtom(atom.GetIdx())
    return cut.GetMol()


def sdf(molecule: Any) -> str:
    return f"{Chem.MolToMolBlock(molecule, kekulize=False)}$$$$\n"


def heavy(atom: Any) -> bool:
    return bool(atom.GetSymbol() != "H")


@pytest.fixture(scope="module")
def furan() -> Any:
    return part(conformer("c1ccoc1"), heavy)


@pytest.fixture(scope="module")
def ends() -> Any:
    """A nitrile and an alcohol, six bonds apart."""
    return part(conformer("N#CCCCCO"), lambda atom: atom.GetIdx() in (0, 1, 5, 6))


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("molecule", device="cpu")


def bonds_of(molecule: Any) -> set[tuple[int, int, float]]:
    plain = Chem.Mol(molecule)
    if plain.NeedsUpdatePropertyCache():
        plain.UpdatePropertyCache(strict=False)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    return {(*sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx())), b.GetBondTypeAsDouble()) for b in plain.GetBonds()}  # type: ignore[misc]


@pytest.mark.parametrize("which", ["furan", "ends"])
def test_what_is_given_is_part_of_what_comes_where_it_was(
    which: str, generate: perrin.Generator, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A scaffold, and two ends that are to be joined; most results are what a chemist would take."""
    given = request.getfixturevalue(which)
    (tmp_path / "given.sdf").write_text(sdf(given))
    read = Chem.MolFromMolFile(str(tmp_path / "given.sdf"), sanitize=False, removeHs=False)
    places, count = read.GetConformer().GetPositions(), read.GetNumAtoms()
    made = [item.value for item in generate(fragment=str(tmp_path / "given.sdf"), count=6, seed=4, steps=30)]
    for one in made:
        found = one.molecule
        assert found.GetNumAtoms() > count
        np.testing.assert_array_equal(found.GetConformer().GetPositions()[:count], places)
        assert [a.GetSymbol() for a in found.GetAtoms()][:count] == [a.GetSymbol() for a in read.GetAtoms()]
        if one.valid and not any(a.GetIsAromatic() for a in found.GetAtoms()):
            assert bonds_of(read) <= bonds_of(found)
    assert sum(one.stable and one.valid and one.connected for one in made) >= 3
    pattern = Chem.MolFromSmarts("o1cccc1" if which == "furan" else "N#C")
    assert sum(one.valid and one.molecule.HasSubstructMatch(pattern) for one in made) >= 3


def test_a_fragment_has_its_molecules_alone_and_among_others(generate: perrin.Generator, furan: Any) -> None:
    """It shares calls with requests that give nothing, another thing, or a formula, and none changes another."""
    data = sdf(furan).encode()
    asked = [{"fragment": data, "seed": 3}, {"seed": 3}, {"fragment": data, "formula": "C6H8O2", "seed": 5}]
    with exactly(generate._driver.engine.model(modality, generate.card)):
        together = generate([{**one, "steps": 6} for one in asked])
        alone = [generate(**one, steps=6) for one in asked]
    for a, b in zip(together, alone, strict=True):
        assert a[0].value.formula == b[0].value.formula
        ours, theirs = (one[0].value.molecule.GetConformer().GetPositions() for one in (a, b))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert together[2][0].value.formula == "C6H8O2"


def test_the_same_fragment_comes_from_every_kind_of_file(furan: Any) -> None:
    places = furan.GetConformer().GetPositions()
    for text in (
        sdf(furan),
        Chem.MolToMolBlock(furan, kekulize=False),
        Chem.MolToXYZBlock(furan),
        Chem.MolToCXSmiles(furan),
    ):
        given = read_fragment(text.encode())
        assert len(given.kinds) == 5
        assert given.open == 4
        assert sorted(given.bonds.tolist())[-5:] == [1, 1, 1, 2, 2]
        assert given.heavy == 5
        order = np.argsort(given.places[:, 0])
        np.testing.assert_allclose(given.places[order], places[np.argsort(places[:, 0])], atol=1e-4)


def test_of_several_molecules_in_a_file_the_first_is_taken(furan: Any, ends: Any) -> None:
    assert len(read_fragment((sdf(ends) + sdf(furan)).encode()).kinds) == 4
    assert len(read_fragment(sdf(ends).replace("\n", "\r\n").encode()).kinds) == 4


WATER = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
FLAT = "2\n\nC 0 0 0\nC 0 0 0\n"
SALT = "2\n\nNa 0 0 0\nCl 2.4 0 0\n"
FULL = "5\n\nC 0 0 0\nH .63 .63 .63\nH -.63 -.63 .63\nH -.63 .63 -.63\nH .63 -.63 -.63\n"


def crowded() -> str:
    """A carbon with five bonds."""
    made = Chem.RWMol()
    for _ in range(6):
        made.AddAtom(Chem.Atom("C" if not made.GetNumAtoms() else "F"))
    shape = Chem.Conformer(6)
    for k in range(5):
        made.AddBond(0, k + 1, Chem.BondType.SINGLE)
        shape.SetAtomPosition(k + 1, [1.3 * np.cos(k * 1.256), 1.3 * np.sin(k * 1.256), 0])
    made.AddConformer(shape)
    return sdf(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rubbish\n", "an SDF, an XYZ, or a SMILES"),
        ("\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0", "an SDF, an XYZ, or a SMILES"),
        ("", "with something in it"),
        ("CCO", "coordinates as well"),
        ("0\n\n", "wanted 1 to 29 atoms"),
        ("10000\n\n" + "C 0 0 0\n" * 10_000, "10000 atoms in the file', wanted 1 to 29"),
        ("3\n\nC 0 0 0\n", "an SDF, an XYZ, or a SMILES"),
        (sdf(Chem.MolFromSmiles("C" * 900)), "900 atoms in the file', wanted at most 29"),
        (SALT, "Na in the file"),
        (FLAT, "0.00 angstrom apart"),
        (FULL, "this one is a whole molecule"),
        (WATER, "this one is a whole molecule"),
        ("1\n\nC nan 0 0\n", "wanted"),
    ],
)
def test_a_file_that_is_no_fragment_is_refused_in_one_line(text: str, message: str, generate: perrin.Generator) -> None:
    with pytest.raises(InvalidInput) as refused:
        generate(fragment=text.encode(), steps=4, seed=1)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_atom_with_too_many_bonds_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"atom 1 \(C\) of the file with bonds of order 5., wanted at most 4"):
        read_fragment(crowded().encode())


def test_a_fragment_of_more_atoms_than_a_molecule_has_is_refused(generate: perrin.Generator) -> None:
    long = part(conformer("CCCCCCCCCCCC"), heavy)
    with pytest.raises(InvalidInput, match=r"12 atoms besides hydrogen in the file., wanted at most 9"):
        generate(fragment=sdf(long).encode(), steps=4, seed=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"atoms": 6}, "7 to 21 atoms"),
        ({"atoms": 29}, "7 to 21 atoms"),
        ({"formula": "C7H10N2"}, "it has more O"),
        ({"relax": "mmff"}, "it would move the atoms"),
    ],
)
def test_what_does_not_go_with_a_fragment_is_refused(
    values: Any, message: str, generate: perrin.Generator, furan: Any
) -> None:
    with pytest.raises(InvalidInput) as refused:
        generate(fragment=sdf(furan).encode(), steps=4, seed=1, **values)
    assert message in str(refused.value)


def test_one_line_completes_a_fragment(furan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "furan.sdf").write_text(sdf(furan))
    out = tmp_path / "m.sdf"
    line = ["generate", "molecule", "--fragment", str(tmp_path / "furan.sdf"), "--seed", "4", "--steps", "8"]
    assert main([*line, "--device", "cpu", "--out", str(out)]) == 0, capsys.readouterr().err
    made = next(iter(Chem.SDMolSupplier(str(out), removeHs=False, sanitize=False)))
    np.testing.assert_array_equal(
        made.GetConformer().GetPositions()[:5].round(4), furan.GetConformer().GetPositions().round(4)
    )
    assert main([*line[:3], str(tmp_path / "none.sdf"), "--out", str(out)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_weight_is_kept_to_by_the_formula(generate: perrin.Generator, furan: Any) -> None:
    made = [item.value for item in generate(weight=112.0, count=6, seed=2, steps=8)]
    assert all(abs(one.weight - 112.0) < 1 for one in made)
    assert len({one.formula for one in made}) > 1
    (one,) = [item.value for item in generate(weight=112.0, atoms=16, seed=2, steps=4)]
    assert abs(one.weight - 112.0) < 2
    assert one.molecule.GetNumAtoms() == 16
    (one,) = [item.value for item in generate(weight=112.0, fragment=sdf(furan).encode(), seed=2, steps=4)]
    assert abs(one.weight - 112.0) < 1
    assert "O" in one.formula
    for values, message in (({"qed": 0.99}, "0.126211 to 0.668797"), ({"weight": 500.0}, "16.043 to 152.037")):
        with pytest.raises(InvalidInput, match=message):
            generate(**values)
    with pytest.raises(InvalidInput, match="which has its weight"):
        generate(weight=100.0, formula="C7H10O2")
    with pytest.raises(InvalidInput, match="a property as well"):
        generate(weight=100.0, guidance=2.0)


def test_parts_for_training_hang_together_and_leave_something() -> None:
    from perrin_molecule.data import parse

    whole = conformer("N#CCC(C)CO")
    record = parse(
        "N#CCC(C)CO", [a.GetSymbol() for a in whole.GetAtoms()], whole.GetConformer().GetPositions().astype(np.float32)
    )
    assert record is not None
    count = len(record.kinds)
    bonds = np.zeros(count * (count - 1) // 2, np.uint8)
    for i, j, order in record.bonds.astype(int):
        bonds[j * (j - 1) // 2 + i] = order
    seen = set()
    for seed in range(200):
        told = chosen(record.kinds, bonds, count, np.random.default_rng(seed))
        assert 0 < told.sum() < count
        pieces = Chem.GetMolFrags(part(whole, lambda atom, told=told: bool(told[atom.GetIdx()])))
        assert len(pieces) <= 2
        seen.add(len(pieces))
    assert seen == {1, 2}
