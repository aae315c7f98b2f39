"""The molecule modality with the shipped model: what is asked for is what comes, alone and together, in every file."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from precision import exactly
from rdkit import Chem

import perrin
from perrin.errors import Degenerate, InvalidInput
from perrin.modality import validate
from perrin.models import find
from perrin_molecule.checks import Made, results
from perrin_molecule.data import KINDS
from perrin_molecule.face import atoms_of, modality
from perrin_molecule.metrics import Molecule, orders_by_length
from perrin_molecule.runtime import MoleculeRuntime
from perrin_molecule.writing import write

STEPS = 12
"""Enough for most molecules to be stable, and quick."""

URANIUM = b"\n\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0       0.0       0.0    U   0  0\nM  END\n"


@pytest.fixture(scope="module")
def runtime() -> MoleculeRuntime:
    return MoleculeRuntime.load(find("qm9"), "cpu")


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("molecule", device="cpu")


@pytest.fixture(scope="module")
def some(generate: perrin.Generator) -> Any:
    return generate(count=6, seed=11, steps=30)


def started(runtime: MoleculeRuntime, **values: Any) -> Any:
    parameters = validate(modality, {"steps": STEPS, **values}).resolved(runtime.card)
    return runtime.start(parameters, {})  # type: ignore[arg-type]


def test_most_molecules_are_what_a_chemist_would_take(some: Any) -> None:
    made: list[Made] = [item.value for item in some]
    assert sum(one.stable and one.valid and one.connected for one in made) >= 4
    assert all(one.strain is not None and one.strain > 0 for one in made if one.sound)


def test_a_formula_and_a_number_of_atoms_are_kept_to(generate: perrin.Generator) -> None:
    made = generate(count=6, seed=3, steps=30, formula="O2H10C7")
    assert sum(item.value.valid and item.value.connected for item in made) >= 2
    for item in made:
        assert item.value.formula == "C7H10O2"
        assert item.metadata["parameters"]["formula"] == "C7H10O2"
    assert [item.value.molecule.GetNumAtoms() for item in generate(count=2, seed=3, steps=4, atoms=12)] == [12, 12]


def test_an_item_is_the_same_whatever_is_made_beside_it(runtime: MoleculeRuntime) -> None:
    """Its noise is its own, and padding never leaks."""
    with exactly(runtime):
        together = started(runtime, seed=5, count=3, steps=8).run()
        for number in range(3):
            alone = started(runtime, seed=5 + number, steps=8).run()
            size = int(alone.mask.sum())
            assert int(together.mask[number].sum()) == size
            assert torch.equal(alone["kinds"][0], together["kinds"][number])
            assert torch.equal(alone["bonds"][0], together["bonds"][number])
            assert (alone["positions"][0] - together["positions"][number]).abs().max() < 1e-6


def test_the_centre_of_mass_stays_at_the_origin(runtime: MoleculeRuntime) -> None:
    run = started(runtime, seed=2, count=3)
    while not run.done:
        run.step()
        assert run.state["positions"].sum(1).abs().max() / run.mask.sum(1).min() < 1e-5
        assert not run.state["positions"][~run.mask].any()


def test_noise_that_is_turned_gives_the_molecule_turned(runtime: MoleculeRuntime) -> None:
    """The whole trajectory, reflection included; the fresh noise of every row is turned as well."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    with exactly(runtime):
        plain, turned = started(runtime, seed=4), started(runtime, seed=4)
        draw = turned._draw

        def rotated(index: int, name: str) -> torch.Tensor:
            drawn: torch.Tensor = draw(index, name)
            return drawn @ turn.T if name == "positions" else drawn

        turned._draw = rotated
        turned._registers["positions"] = [x @ turn.T for x in turned._registers["positions"]]
        a, b = plain.run(), turned.run()
    assert torch.equal(a["kinds"], b["kinds"])
    assert torch.equal(a["bonds"], b["bonds"])
    assert (a["positions"] @ turn.T - b["positions"]).abs().max() < 1e-6


def test_a_run_that_was_saved_goes_on_to_the_same_bits(runtime: MoleculeRuntime) -> None:
    whole, first, second = (started(runtime, seed=8, count=2, atoms=9) for _ in range(3))
    for _ in range(5):
        first.step()
    second.restore(first.save())
    for name, value in whole.run().items():
        assert torch.equal(second.run()[name] if not second.done else second.result[name], value)


def test_every_format_holds_all_and_says_how_it_was_made(some: Any) -> None:
    kinds = {one.name: one for one in modality.formats}
    values = [item.value for item in some]
    files = {name: write(values, kind.media_type, {"seed": 11}) for name, kind in kinds.items()}
    assert files == {name: write(values, kind.media_type, {"seed": 11}) for name, kind in kinds.items()}
    blocks = files["sdf"].decode().split("$$$$\n")[:-1]
    assert len(blocks) == 6
    for block, one in zip(blocks, values, strict=True):
        read = Chem.MolFromMolBlock(block, removeHs=False, sanitize=one.valid)
        assert read.GetNumAtoms() == one.molecule.GetNumAtoms()
        assert json.loads(block.split("> <perrin>\n")[1].splitlines()[0]) == {"seed": 11}
        if one.valid:
            assert Chem.MolToSmiles(Chem.RemoveHs(read), isomericSmiles=False) == Chem.MolToSmiles(
                Chem.RemoveHs(one.molecule), isomericSmiles=False
            )
    assert files["xyz"].decode().count("smiles=") == 6
    assert len(files["smi"].decode().splitlines()) == 1 + sum(one.valid for one in values)
    table = list(csv.DictReader(io.StringIO(files["csv"].decode())))
    assert [row["formula"] for row in table] == [one.formula for one in values]
    picture = Image.open(io.BytesIO(files["png"]))
    assert json.loads(picture.text["perrin"]) == {"seed": 11}  # type: ignore[attr-defined]
    assert np.asarray(picture.convert("L")).std() > 5


def test_a_relaxed_molecule_lies_in_a_minimum_and_says_so(some: Any) -> None:
    one = next(item.value for item in some if item.value.sound)
    kinds = [KINDS.index((a.GetSymbol(), a.GetFormalCharge())) for a in one.molecule.GetAtoms()]
    bonds = torch.zeros(len(kinds) * (len(kinds) - 1) // 2, dtype=torch.long)
    plain = Chem.Mol(one.molecule)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    for bond in plain.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        bonds[j * (j - 1) // 2 + i] = int(bond.GetBondTypeAsDouble())
    places = torch.tensor(one.molecule.GetConformer().GetPositions(), dtype=torch.float32)
    molecule = Molecule(places, torch.tensor(kinds), bonds)
    (before,), (after,) = results([molecule]), results([molecule], relax=True)
    assert (before.relaxed, after.relaxed) == (False, True)
    assert before.strain is not None
    assert after.strain == 0
    (again,) = results([molecule._replace(positions=torch.tensor(after.molecule.GetConformer().GetPositions()))])
    assert again.strain is not None
    assert again.strain < 0.1 + 0.05 * before.strain


def test_a_property_that_is_asked_for_moves_the_molecules(runtime: MoleculeRuntime) -> None:
    """Molecules that are told to be hard to polarise are smaller electron clouds than those told the contrary."""
    heavy = []
    for value in (55.0, 95.0):
        clean = started(runtime, seed=1, count=6, atoms=16, polarisability=value, guidance=1.5).run()
        kinds = clean["kinds"][:, :16]
        heavy.append(float((kinds > 0).float().sum(1).mean()))
    assert heavy[1] > heavy[0] + 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"atoms": 0}, "atoms: got 0, wanted an integer of at least 1"),
        ({"atoms": 10_000}, "atoms: got 10000, wanted 3 to 29 atoms"),
        ({"formula": "C7XeH10"}, "elements H, C, N, O, F, not Xe"),
        ({"formula": "water"}, "a molecular formula such as C7H10O2"),
        ({"formula": "C60"}, "3 to 29 atoms"),
        ({"formula": "CH4", "atoms": 7}, "5, as the formula CH4 has"),
        ({"gap": 400.0}, "1.14288 to 16.9282, the range of the training data"),
        ({"guidance": 2.0}, "a property as well"),
        ({"sampler": "heun"}, "one with an evaluation a step"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(runtime: MoleculeRuntime, values: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        started(runtime, seed=1, **values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_molecule_that_is_wrong_is_reported_and_written_like_any_other() -> None:
    """Five bonds on a carbon, in a ring; and two atoms that nothing joins."""
    places = 1.4 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.8, 0.3]])
    ring = Molecule(places, torch.tensor([1, 1, 1]), torch.tensor([3, 2, 1]))
    loose = Molecule(places, torch.tensor([1, 0, 0]), torch.tensor([0, 0, 0]))
    made = results([ring, loose], relax=True)
    assert [(one.stable, one.valid, one.sound) for one in made] == [
        (False, False, False),
        (False, made[1].valid, False),
    ]
    assert not made[1].connected
    for kind in modality.formats:
        assert write(made, kind.media_type, {"seed": 1})


def test_a_report_does_not_depend_on_where_messages_went_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """PoseBusters writes to the standard error of its last call; that may be closed by now."""
    corners = [[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]
    bonds = torch.zeros(10, dtype=torch.long)
    bonds[[0, 1, 3, 6]] = 1
    methane = Molecule(0.63 * torch.tensor([[0.0, 0, 0], *corners]), torch.tensor([1, 0, 0, 0, 0]), bonds)
    with io.StringIO() as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        assert results([methane])[0].failed == ()
    assert results([methane])[0].failed == ()


def test_bonds_by_lengths_are_edms_of_the_same_places(generate: perrin.Generator) -> None:
    own, table = (generate(count=3, seed=11, steps=12, bonds=bonds) for bonds in ("generated", "lengths"))
    for a, b in zip(own, table, strict=True):
        places = b.value.molecule.GetConformer().GetPositions()
        np.testing.assert_array_equal(places, a.value.molecule.GetConformer().GetPositions())
        elements = [atom.GetSymbol() for atom in b.value.molecule.GetAtoms()]
        orders = orders_by_length(torch.tensor(places), torch.tensor(["HCNOF".index(e) for e in elements]))
        plain = Chem.Mol(b.value.molecule)
        if b.value.valid:
            Chem.Kekulize(plain, clearAromaticFlags=True)
        assert int(orders.sum()) == 2 * sum(bond.GetBondTypeAsDouble() for bond in plain.GetBonds())
        assert not any(atom.GetFormalCharge() for atom in plain.GetAtoms())


def test_atoms_in_one_place_or_nowhere_are_degenerate(runtime: MoleculeRuntime) -> None:
    for places in (torch.zeros(5, 3), torch.full((5, 3), float("nan"))):
        made = Molecule(places, torch.tensor([1, 0, 0, 0, 0]), torch.zeros(10, dtype=torch.long))
        with pytest.raises(Degenerate):
            runtime.check(results([made])[0])


def test_formulas_are_read() -> None:
    assert atoms_of("C7H10O2") == {"C": 7, "H": 10, "O": 2}
    for wrong in ("", "c7", "7C", "C-", "C1000"):
        with pytest.raises(ValueError, match=wrong or "^$"):
            atoms_of(wrong)
