"""How good molecules are: stability by explicit bonds and by EDM's table of lengths, validity, uniqueness, novelty.

Valences are exact, by element and charge: an aromatic ring counts with its single and double bonds, and a carbon of
three bonds is not stable. EDM's table knows no charges: there N has three bonds.

References:
    Hoogeboom et al., Equivariant Diffusion for Molecule Generation in 3D (2022), appendix C and ``bond_analyze.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin_molecule.data import KINDS, pairs_of

__all__ = [
    "VALENCES",
    "Molecule",
    "by_length",
    "interval",
    "report",
    "smiles_of",
    "stable",
    "stable_by_length",
    "to_rdkit",
]

VALENCES: tuple[int, ...] = (1, 4, 3, 2, 1, 4, 1, 3, 2, 3, 3)
"""Sum of bond orders of each class of `KINDS`."""

ELEMENTS = ("H", "C", "N", "O", "F")
MARGINS = (10, 5, 3)
"""How much longer than the table's a single, double and triple bond may be, in picometres."""

LENGTHS: tuple[dict[str, int], ...] = (
    {
        "HH": 74, "HC": 109, "HN": 101, "HO": 96, "HF": 92, "CC": 154, "CN": 147, "CO": 143, "CF": 135,
        "NN": 145, "NO": 140, "NF": 136, "OO": 148, "OF": 142, "FF": 142,
    },
    {"CC": 134, "CN": 129, "CO": 120, "NN": 125, "NO": 121, "OO": 121},
    {"CC": 120, "CN": 116, "CO": 113, "NN": 110},
)  # fmt: skip
"""EDM's single, double and triple bonds, in picometres."""


class Molecule(NamedTuple):
    """Positions (N, 3) in angstrom, kinds (N,), and the bonds of the list of pairs (P,)."""

    positions: Tensor
    kinds: Tensor
    bonds: Tensor


def stable(kinds: Tensor, bonds: Tensor, mask: Tensor) -> Tensor:
    """Which atoms (B, N) have the valence of their kind by the bonds (B, P); True where there is no atom."""
    i, j = (index.to(kinds.device) for index in pairs_of(kinds.shape[1]))
    order = (bonds * (mask[:, i] & mask[:, j])).long()
    total = torch.zeros_like(kinds, dtype=torch.long)
    total.index_add_(1, i, order).index_add_(1, j, order)
    return (total == torch.tensor(VALENCES, device=kinds.device)[kinds.long()]) | ~mask


def orders_by_length(positions: Tensor, elements: Tensor) -> Tensor:
    """Bond orders (N, N) that EDM's table reads from positions (N, 3) in angstrom and indices of `ELEMENTS` (N,)."""
    away = torch.cdist(positions.double(), positions.double()) * 100
    orders = torch.zeros(len(elements), len(elements), dtype=torch.long)
    open_ = ~torch.eye(len(elements), dtype=torch.bool)
    for order, (table, margin) in enumerate(zip(LENGTHS, MARGINS, strict=True), 1):
        longest = torch.zeros(len(ELEMENTS), len(ELEMENTS), dtype=torch.double)
        for pair, length in table.items():
            a, b = (ELEMENTS.index(e) for e in pair)
            longest[a, b] = longest[b, a] = length + margin
        open_ = open_ & (away < longest[elements][:, elements])
        orders[open_] = order
    return orders


def by_length(molecule: Molecule) -> Molecule:
    """The same atoms, neutral, with the bonds that EDM's table reads from their distances."""
    elements = torch.tensor([ELEMENTS.index(KINDS[k][0]) for k in molecule.kinds.tolist()])
    i, j = pairs_of(len(elements))
    return Molecule(molecule.positions, elements, orders_by_length(molecule.positions, elements)[i, j])


def stable_by_length(positions: Tensor, kinds: Tensor) -> Tensor:
    """Which atoms (N,) have their valence by EDM's table; charges are not looked at."""
    elements = torch.tensor([ELEMENTS.index(KINDS[k][0]) for k in kinds.tolist()])
    total = orders_by_length(positions, elements).sum(1)
    return total == torch.tensor([1, 4, 3, 2, 1])[elements]


def to_rdkit(molecule: Molecule, bare: bool = False) -> Any:
    """The molecule for RDKit, not sanitised.

    Args:
        molecule: what to convert.
        bare: atoms may have more hydrogens than there are, which bonds by length are judged with.
    """
    from rdkit import Chem

    made = Chem.RWMol()
    kinds = molecule.kinds.tolist()
    for kind in kinds:
        atom = Chem.Atom(KINDS[kind][0])
        if not bare:
            atom.SetFormalCharge(KINDS[kind][1])
            atom.SetNoImplicit(True)
        made.AddAtom(atom)
    types = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
    first, second = pairs_of(len(kinds))
    orders = molecule.bonds
    for at in orders.nonzero().flatten().tolist():
        made.AddBond(int(first[at]), int(second[at]), types[int(orders[at]) - 1])
    shape = Chem.Conformer(len(kinds))
    shape.SetPositions(np.asarray(molecule.positions, np.float64))
    made.AddConformer(shape)
    return made.GetMol()


def smiles_of(molecule: Any) -> tuple[str | None, bool]:
    """Canonical SMILES without hydrogens and stereo of the largest fragment, None where RDKit refuses the molecule;
    and whether it is in one piece."""
    from rdkit import Chem, rdBase

    quiet = rdBase.BlockLogs()  # while it lives
    try:
        Chem.SanitizeMol(molecule)
        parts = Chem.GetMolFrags(molecule, asMols=True)
        largest = max(parts, key=lambda part: int(part.GetNumAtoms()))
        Chem.SanitizeMol(largest)
        return Chem.MolToSmiles(Chem.RemoveHs(largest), isomericSmiles=False), len(parts) == 1
    except (ValueError, RuntimeError):
        return None, False
    finally:
        del quiet


def interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z, p = 1.959964, hits / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return middle - half, middle + half


def report(molecules: Sequence[Molecule], known: Iterable[str] = ()) -> dict[str, Any]:
    """The table of a set of molecules.

    Args:
        molecules: the set.
        known: SMILES of the training data, as `smiles_of` writes them.

    Returns:
        Shares by name: of atoms and molecules that are stable, by explicit bonds and by length (``_by_length``); of
        molecules that are valid, valid and unique, and valid, unique and in one piece; novel ones among the valid and
        unique; and 95% intervals by the same names under ``intervals``.
    """
    counts: dict[str, list[bool]] = {}

    def add(name: str, values: npt.NDArray[np.bool_] | Sequence[bool]) -> None:
        counts.setdefault(name, []).extend(bool(v) for v in values)

    found: dict[str, list[tuple[str | None, bool]]] = {"": [], "_by_length": []}
    for molecule in molecules:
        there = torch.ones(1, len(molecule.kinds), dtype=torch.bool)
        ways = {
            "": stable(molecule.kinds[None], molecule.bonds[None], there)[0],
            "_by_length": stable_by_length(molecule.positions, molecule.kinds),
        }
        for way, atoms in ways.items():
            add(f"atom_stable{way}", atoms.numpy())
            add(f"molecule_stable{way}", [bool(atoms.all())])
            found[way].append(smiles_of(to_rdkit(by_length(molecule) if way else molecule, bare=bool(way))))
    for way, pairs in found.items():
        seen: set[str] = set()
        for smiles, whole in pairs:
            fresh = smiles is not None and smiles not in seen
            add(f"valid{way}", [smiles is not None])
            add(f"valid_unique{way}", [fresh])
            add(f"valid_unique_connected{way}", [fresh and whole])
            if smiles is not None:
                seen.add(smiles)
    valid = {smiles for smiles, _ in found[""] if smiles is not None}
    trained = set(known)
    if trained:
        add("novel", [smiles not in trained for smiles in sorted(valid)])
    shares: dict[str, Any] = {name: sum(values) / max(1, len(values)) for name, values in counts.items()}
    shares["intervals"] = {name: interval(sum(values), max(1, len(values))) for name, values in counts.items()}
    return shares
