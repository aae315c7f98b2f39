"""Data, counting and the network of molecules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from perrin.diffusion import process
from perrin.diffusion.state import Fields
from perrin.errors import ModelError
from perrin.models import ModelCard, find
from perrin.models.card import write_card
from perrin_molecule import data, metrics
from perrin_molecule.completing import CompletingTask
from perrin_molecule.data import KINDS, pairs_of, parse
from perrin_molecule.metrics import Molecule, interval, report, smiles_of, stable, stable_by_length, to_rdkit
from perrin_molecule.network import MoleculeNetwork
from perrin_molecule.runtime import MoleculeRuntime
from perrin_molecule.sampling import generate
from perrin_molecule.training import MoleculeTask, load_network

pytest.importorskip("rdkit")

METHANE = np.array(
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]], np.float32
)


def molecule(smiles: str, seed: int = 1) -> Molecule:
    """A molecule of SMILES with a conformer of RDKit's."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    whole = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(whole, randomSeed=seed) == 0
    positions = whole.GetConformer().GetPositions().astype(np.float32)
    record = parse(smiles, [atom.GetSymbol() for atom in whole.GetAtoms()], positions)
    assert record is not None
    return of(record)


def of(record: data.Record) -> Molecule:
    count = len(record.kinds)
    bonds = torch.zeros(count * (count - 1) // 2, dtype=torch.long)
    i, j, kind = torch.from_numpy(record.bonds).long().unbind(1)
    bonds[j * (j - 1) // 2 + i] = kind
    return Molecule(torch.from_numpy(record.positions), torch.from_numpy(record.kinds).long(), bonds)


def test_pairs_of_the_first_atoms_come_first() -> None:
    i, j = pairs_of(7)
    assert (i < j).all()
    assert torch.equal(j * (j - 1) // 2 + i, torch.arange(21))
    few, fewer = pairs_of(5)
    assert torch.equal(i[:10], few)
    assert torch.equal(j[:10], fewer)


@pytest.mark.parametrize("smiles", ["C", "c1ccccc1O", "N#CC#C", "C[NH2+]CC([O-])=O", "FC1CC1", "O=C1NC=NC2=C1C=NN2"])
def test_a_molecule_survives_packing(smiles: str) -> None:
    from rdkit import Chem

    found, whole = smiles_of(to_rdkit(molecule(smiles)))
    assert whole
    assert found == Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
    made = report([molecule(smiles)])
    assert made["atom_stable"] == made["molecule_stable"] == made["valid_unique_connected"] == 1.0


def test_heavy_atoms_after_hydrogens_are_put_in_order() -> None:
    order = [1, 2, 0, 3, 4]
    elements = ["H", "H", "C", "H", "H"]
    record = parse("C", elements, METHANE[order])
    assert record is not None
    assert [KINDS[k][0] for k in record.kinds] == ["C", "H", "H", "H", "H"]
    np.testing.assert_allclose(record.positions[0], METHANE[0] - METHANE.mean(0), atol=1e-6)


def test_a_geometry_of_another_molecule_is_left_out() -> None:
    assert parse("CC", ["C", "H", "H", "H", "H"], METHANE) is None
    away = METHANE.copy()
    away[1] *= 10
    assert parse("C(=O)=O", ["O", "C", "O"], np.array([[0, 0, 0], [9, 0, 0], [18, 0, 0]], np.float32)) is None


def test_broken_valences_are_counted() -> None:
    whole = molecule("CCO")
    there = torch.ones(1, len(whole.kinds), dtype=torch.bool)
    assert stable(whole.kinds[None], whole.bonds[None], there).all()
    broken = whole.bonds.clone()
    broken[0] = 2  # the bond of both carbons
    atoms = stable(whole.kinds[None], broken[None], there)[0]
    assert atoms.tolist() == [False, False] + [True] * (len(atoms) - 2)
    made = report([whole, whole._replace(bonds=broken)])
    assert made["molecule_stable"] == 0.5
    assert made["valid"] == 0.5
    assert made["atom_stable"] == 1 - 2 / (2 * len(whole.kinds))
    loose = whole.bonds.clone()
    loose[0] = 0  # carbons of three bonds are not stable
    assert report([whole._replace(bonds=loose)])["molecule_stable"] == 0


def test_an_aromatic_ring_counts_whole_bonds() -> None:
    ring = molecule("c1ccccc1")
    assert sorted(ring.bonds[ring.bonds > 1].tolist()) == [2, 2, 2]
    atoms = stable(ring.kinds[None], ring.bonds[None], torch.ones(1, 12, dtype=torch.bool))
    assert atoms.all()


@pytest.mark.parametrize(
    ("a", "b", "picometres", "order"),
    [("C", "C", 163.9, 1), ("C", "C", 164.1, 0), ("C", "C", 138.9, 2), ("C", "C", 122.9, 3), ("C", "C", 123.1, 2),
     ("C", "H", 118.9, 1), ("H", "C", 119.1, 0), ("N", "O", 125.9, 2), ("F", "F", 151, 1), ("C", "O", 115.9, 3)],
)  # fmt: skip
def test_the_table_of_lengths_is_edms(a: str, b: str, picometres: float, order: int) -> None:
    elements = torch.tensor([metrics.ELEMENTS.index(a), metrics.ELEMENTS.index(b)])
    positions = torch.tensor([[0.0, 0, 0], [0, picometres / 100, 0]])
    assert metrics.orders_by_length(positions, elements).tolist() == [[0, order], [order, 0]]


def test_lengths_make_methane_stable_until_one_bond_is_stretched() -> None:
    kinds = torch.tensor([1, 0, 0, 0, 0])
    assert stable_by_length(torch.from_numpy(METHANE), kinds).all()
    stretched = METHANE.copy()
    stretched[1] *= 1.2
    assert stable_by_length(torch.from_numpy(stretched), kinds).tolist() == [False, False, True, True, True]


def test_repeated_and_known_molecules_are_told_apart() -> None:
    made = report([molecule("CCO"), molecule("CCO", seed=2), molecule("CC=O")], known=["CCO"])
    assert made["valid"] == 1
    assert made["valid_unique"] == pytest.approx(2 / 3)
    assert made["novel"] == 0.5


def test_the_interval_is_wilsons() -> None:
    low, high = interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_numbers_in_every_way_of_writing() -> None:
    assert data._numbers("[[1.5*^-6,-2.,0.25]]").tolist() == pytest.approx([1.5e-6, -2, 0.25])


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A set of three molecules in the tables' form; one row is of a geometry that is another molecule's."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    rows = []
    for smiles in ("CCO", "C#N", "OCC=O", "N"):
        whole = Chem.AddHs(Chem.MolFromSmiles("C" if smiles == "N" else smiles))
        AllChem.EmbedMolecule(whole, randomSeed=3)
        positions = json.dumps(whole.GetConformer().GetPositions().tolist())
        elements = str([atom.GetSymbol() for atom in whole.GetAtoms()])
        rows.append(
            f'"{smiles}","{elements}","{positions}",{0.25 + 0.01 * len(smiles)},1.{len(smiles)},30.{len(smiles)}'
        )
    head = "SMILES,Elements,XYZ_Ang,HOMO_LUMO_gap_au,Dipole_debye,Polarizability_bohr3"
    for part, content in ((1, rows[:2]), (2, rows[2:]), (3, [])):
        (tmp_path / f"qm9_part{part}.csv").write_text("\n".join([head, *content]) + "\n")
    assert data.pack(tmp_path, tmp_path / "set.safetensors") == {"molecules": 4, "packed": 3, "left_out": 1}
    return tmp_path / "set.safetensors"


def test_a_packed_set_comes_back(pack: Path) -> None:
    found = data.read(pack)
    assert found.sizes.tolist() == [9, 3, 8]
    assert float(found.properties[0, 0]) == pytest.approx(7.6192, abs=1e-3)
    for k, smiles in enumerate(("CCO", "C#N", "O=CCO")):
        n = int(found.sizes[k])
        assert not found.bonds[k, n * (n - 1) // 2 :].any()
        assert abs(float(found.positions[k].sum())) < 1e-4
        made = Molecule(found.positions[k, :n], found.kinds[k, :n].long(), found.bonds[k, : n * (n - 1) // 2].long())
        assert smiles_of(to_rdkit(made)) == (smiles, True)


def test_the_split_is_edms() -> None:
    part = data.split(130_831)
    assert np.bincount(part).tolist() == [100_000, 17_748, 13_083]
    order = np.random.RandomState(0).permutation(130_831)
    assert not part[order[:100_000]].any()


# --- network and sampler ----------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"width": 16, "pair_width": 8, "depth": 2, "message": 8, "heads": 2, "vectors": 2}


@pytest.fixture
def network() -> MoleculeNetwork:
    torch.manual_seed(0)
    made = MoleculeNetwork(context=2, **SMALL).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.requires_grad_(False)


def test_a_whole_molecule_turns_with_what_it_sees_and_with_its_estimate(network: MoleculeNetwork) -> None:
    network = network.double()
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    x = torch.randn(2, 6, 3, dtype=torch.double)
    kinds, bonds = torch.randint(0, 5, (2, 6)), torch.randint(0, 4, (2, 15))
    t, estimate = torch.tensor([0.3, 0.6]).double(), {
        "positions": torch.randn(2, 6, 3).double(),
        "kinds": torch.rand(2, 6, len(KINDS)).double(),
        "bonds": torch.rand(2, 15, 4).double(),
    }  # fmt: skip
    plain = network(Fields({"positions": x, "kinds": kinds, "bonds": bonds}, mask), t, estimate=estimate)
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    turned = network(
        Fields({"positions": x @ turn, "kinds": kinds, "bonds": bonds}, mask),
        t,
        estimate={**estimate, "positions": estimate["positions"] @ turn},
    )
    torch.testing.assert_close(turned["positions"], plain["positions"] @ turn, atol=1e-9, rtol=1e-7)
    for name in ("kinds", "bonds"):
        torch.testing.assert_close(turned[name], plain[name], atol=1e-9, rtol=1e-7)
    without = network(Fields({"positions": x, "kinds": kinds, "bonds": bonds}, mask), t)
    assert not torch.allclose(without["kinds"], plain["kinds"])


def test_samples_have_the_sizes_asked_for_and_no_drift(network: MoleculeNetwork) -> None:
    noise = {"kinds": [1 / len(KINDS)] * len(KINDS), "bonds": [0.25] * 4}
    sizes = [7, 3, 9, 4]
    made = generate(network, process.from_config({"kind": "flow"}), sizes, noise, 1.4, steps=4)
    assert [len(m.kinds) for m in made] == sizes
    for m in made:
        assert m.positions.mean(0).abs().max() < 1e-5
        assert len(m.bonds) == len(m.kinds) * (len(m.kinds) - 1) // 2
        assert 0 <= int(m.bonds.min()) <= int(m.bonds.max()) < 4


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_few_steps_lower_the_loss_and_the_weights_come_back(pack: Path, tmp_path: Path) -> None:
    folders = {"data": tmp_path / "data", "out": tmp_path / "out", "model": tmp_path}
    (folders["data"] / "molecule").mkdir(parents=True)
    folders["out"].mkdir()
    pack.rename(folders["data"] / "molecule" / "qm9.safetensors")
    task = MoleculeTask({"network": SMALL, "buckets": [4, 9]}, {}, folders)
    task.prepare(lambda *_: None)
    assert {task.batch(2, np.random.default_rng(k)).atoms for k in range(20)} == {4, 9}
    optimizer = torch.optim.Adam(task.network.parameters(), 5e-3)
    losses = []
    for k in range(60):
        batch = task.batch(8, np.random.default_rng(k))
        value, parts = task.loss(task.network, batch, torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert set(parts) == {"positions", "kinds", "bonds"}
    assert all(parameter.grad is not None for parameter in task.network.parameters())
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])
    again = task.loss(task.network, batch, torch.Generator().manual_seed(k))[0]
    assert float(again.detach()) == float(task.loss(task.network, batch, torch.Generator().manual_seed(k))[0].detach())

    said = task.publish(task.network, tmp_path)
    made = load_network(tmp_path / "molecule.safetensors", said["architecture"]["molecule"])
    for name, parameter in task.network.named_parameters():
        torch.testing.assert_close(made.get_parameter(name), parameter.detach(), atol=2e-3, rtol=2e-3)


def test_properties_are_told_with_whether_they_are_known(pack: Path, tmp_path: Path) -> None:
    folders = {"data": tmp_path / "data", "out": tmp_path, "model": tmp_path}
    (folders["data"] / "molecule").mkdir(parents=True)
    pack.rename(folders["data"] / "molecule" / "qm9.safetensors")
    task = MoleculeTask({"network": SMALL, "buckets": [9], "property_dropout": 0.5}, {}, folders)
    task.prepare(lambda *_: None)
    told = torch.tensor([[True, False, True]])
    task._standard = torch.tensor([[7.0, 2.0, 75.0], [1.5, 1.0, 8.0]])
    found = task.context(torch.tensor([[8.5, 3.0, 75.0]]), told)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0, 1, 0, 1]]))
    share = torch.cat([task.batch(64, np.random.default_rng(k)).told for k in range(30)]).float().mean()
    assert abs(float(share) - 1 / 3) < 0.03


def test_what_completes_begins_as_the_model_is_and_becomes_a_model_that_completes(pack: Path, tmp_path: Path) -> None:
    """Before the first step the loss is the model's own; a step changes nothing but what is added."""
    folders = {"data": tmp_path / "data", "out": tmp_path / "out", "model": tmp_path}
    (folders["data"] / "molecule").mkdir(parents=True)
    folders["out"].mkdir()
    pack.rename(folders["data"] / "molecule" / "qm9.safetensors")
    base = find("qm9", "molecule")
    network = {k: v for k, v in base.architecture["molecule"].items() if k != "kind"}
    old = MoleculeTask({"network": network, "buckets": [9]}, {}, folders)
    old.network.load_state_dict({k: v.float() for k, v in load(base.read("molecule.safetensors")).items()})
    new = CompletingTask({"buckets": [9], "fixed_share": 0.0}, {}, folders)
    for task in (old, new):
        task.prepare(lambda *_: None)
    batch = new.batch(4, np.random.default_rng(0))
    assert batch.fixed is None
    first = new.loss(new.network, batch, torch.Generator().manual_seed(0))[0]
    assert float(first.detach()) == float(
        old.loss(old.network, batch.batch, torch.Generator().manual_seed(0))[0].detach()
    )

    new.options["fixed_share"] = 1.0
    batch = new.batch(4, np.random.default_rng(0))
    optimizer = torch.optim.Adam([p for p in new.network.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(6):
        value, _ = new.loss(new.network, batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0]
    model = tmp_path / "model"
    model.mkdir()
    values = {"name": "mine", "modality": "molecule", "title": "Mine", "licence": "none", "defaults": base.defaults}
    card = write_card(ModelCard.model_validate({**values, **new.publish(new.network, model)}), model)
    assert card.files["molecule.safetensors"] == base.files["molecule.safetensors"]
    assert MoleculeRuntime.load(card, "cpu")
    broken = card.model_copy(update={"files": {**card.files, "completion.safetensors": "0" * 64}})
    with pytest.raises(ModelError, match=r"completion.safetensors is not the file"):
        MoleculeRuntime.load(broken, "cpu")
