"""A fragment that a request gives, to be completed: read from SDF, XYZ, or SMILES with coordinates.

XYZ has no bonds; they are read from distances by RDKit. A SMILES line has its coordinates in the manner of CXSMILES:
``C1=COC=C1 |(0.0,0.7,0.1;...)|``. Of several molecules in a file the first is taken. Several pieces are several ends,
to be joined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perrin.errors import InvalidInput
from perrin_molecule.data import ATOMS, KINDS, pairs_of
from perrin_molecule.metrics import VALENCES, Molecule

__all__ = ["Given", "read_fragment"]

FIELD = "fragment"

NEAREST = 0.5
"""Two atoms nearer than this, in angstrom, are a mistake."""

HEAVY = 9
"""The most atoms other than hydrogen that molecules of QM9 have."""


class Given(NamedTuple):
    """Atoms that a molecule is to have.

    Attributes:
        places: (n, 3) in angstrom, float64, as the file has them.
        kinds: (n,) classes of `KINDS`.
        bonds: (n (n - 1) / 2,) classes of the list of pairs.
    """

    places: npt.NDArray[np.float64]
    kinds: Tensor
    bonds: Tensor

    @property
    def lacking(self) -> Tensor:
        """(n,) bonds that each atom lacks."""
        count = len(self.kinds)
        i, j = pairs_of(count)
        total = torch.zeros(count, dtype=torch.long)
        total.index_add_(0, i, self.bonds).index_add_(0, j, self.bonds)
        return torch.tensor(VALENCES)[self.kinds] - total

    @property
    def open(self) -> int:
        """Bonds that the atoms lack in all."""
        return int(self.lacking.sum())

    @property
    def heavy(self) -> int:
        """Atoms other than hydrogen."""
        return int((self.kinds > 0).sum())

    @property
    def range(self) -> tuple[int, int]:
        """The fewest and the most atoms of a molecule of at most nine heavy atoms that has these."""
        count = len(self.kinds)
        return count + (self.open + 1) // 2, count + self.open + 3 * max(0, HEAVY - self.heavy)

    def within(self, molecule: Molecule) -> Molecule:
        """``molecule``, made around the middle of these atoms, which are its first, where the file has them."""
        whole = molecule.positions.double() + torch.from_numpy(self.places.mean(0))
        whole[: len(self.places)] = torch.from_numpy(self.places)
        return molecule._replace(positions=whole)


def read_fragment(data: bytes, shown: str = "the file") -> Given:
    """The fragment of a file.

    Raises:
        InvalidInput: it is none: says what is wrong with it, in one line.
    """
    from rdkit import Chem, rdBase

    quiet = rdBase.BlockLogs()  # while it lives
    try:
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        made = _molecule(text, shown)
        if made is None or not made.GetNumAtoms():
            raise InvalidInput(FIELD, shown, "an SDF, an XYZ, or a SMILES with coordinates that RDKit can read")
        if made.GetNumAtoms() > ATOMS:  # looked at before anything of every two atoms is
            raise InvalidInput(FIELD, f"{made.GetNumAtoms()} atoms in {shown}", f"at most {ATOMS}")
        _known(made, shown)
        try:
            Chem.Kekulize(made, clearAromaticFlags=True)
        except (ValueError, RuntimeError):
            raise InvalidInput(FIELD, shown, "bonds that can be single, double and triple ones: not these") from None
        return _checked(made, shown)
    finally:
        del quiet


def _molecule(text: str, shown: str) -> Any:
    """What RDKit reads of it, not sanitised; None if nothing."""
    from rdkit import Chem

    lines = text.strip("\n").splitlines()
    if "M  END" in text or "V2000" in text or "V3000" in text:
        return Chem.MolFromMolBlock(text.split("$$$$")[0], sanitize=False, removeHs=False)
    if lines and lines[0].strip().isdecimal():
        return _of_xyz(lines, shown)
    options = Chem.SmilesParserParams()
    options.sanitize = False  # type: ignore[assignment]
    options.removeHs = False  # type: ignore[assignment]
    made = Chem.MolFromSmiles(text.strip(), options) if len(lines) == 1 else None
    if made is not None and not made.GetNumConformers():
        raise InvalidInput(FIELD, shown, "coordinates as well: an SDF, an XYZ, or SMILES |(x,y,z;...)|")
    return made


def _of_xyz(lines: list[str], shown: str) -> Any:
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    count = int(lines[0])
    if not 1 <= count <= ATOMS:
        raise InvalidInput(FIELD, f"{count} atoms in {shown}", f"1 to {ATOMS} atoms")
    made = Chem.MolFromXYZBlock("\n".join(lines[: count + 2]) + "\n")
    if made is None:
        return None
    rdDetermineBonds.DetermineConnectivity(made)
    return _with_orders(made)


def _with_orders(made: Any) -> Any:
    """Single bonds, but double or triple ones where EDM's table says so."""
    from rdkit import Chem

    from perrin_molecule.metrics import ELEMENTS, orders_by_length

    if any(atom.GetSymbol() not in ELEMENTS for atom in made.GetAtoms()):
        return made
    places = torch.tensor(made.GetConformer().GetPositions())
    orders = orders_by_length(places, torch.tensor([ELEMENTS.index(a.GetSymbol()) for a in made.GetAtoms()]))
    types = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
    for bond in made.GetBonds():
        bond.SetBondType(types[max(1, int(orders[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()])) - 1])
    return made


def _known(made: Any, shown: str) -> None:
    """Refuse atoms and bonds that the models know nothing of."""
    from rdkit import Chem

    for atom in made.GetAtoms():
        if (atom.GetSymbol(), atom.GetFormalCharge()) not in KINDS:
            charge = atom.GetFormalCharge()
            got = atom.GetSymbol() + (f" of charge {charge:+d}" if charge else "")
            raise InvalidInput(FIELD, f"{got} in {shown}", "atoms of H, C, N, O and F, with charges of -1 to 1")
    allowed = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
    if any(bond.GetBondType() not in allowed for bond in made.GetBonds()):
        raise InvalidInput(FIELD, shown, "single, double, triple or aromatic bonds")


def _checked(made: Any, shown: str) -> Given:
    """Refuse places that are none, atoms with more bonds than they can have, and pieces with none left to make."""
    from rdkit import Chem

    if not made.GetNumConformers():
        raise InvalidInput(FIELD, shown, "coordinates as well")
    places = np.asarray(made.GetConformer().GetPositions(), np.float64)
    if not np.isfinite(places).all():
        raise InvalidInput(FIELD, shown, "coordinates that are finite numbers")
    away = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
    if away.min() < NEAREST:
        i, j = np.unravel_index(away.argmin(), away.shape)
        raise InvalidInput(
            FIELD, f"atoms {min(i, j) + 1} and {max(i, j) + 1} of {shown}, {away.min():.2f} angstrom apart",
            f"atoms in space, at least {NEAREST} angstrom apart: a drawing in two dimensions is not enough",
        )  # fmt: skip
    kinds = torch.tensor([KINDS.index((a.GetSymbol(), a.GetFormalCharge())) for a in made.GetAtoms()])
    bonds = torch.zeros(len(kinds) * (len(kinds) - 1) // 2, dtype=torch.long)
    total = [0] * len(kinds)
    for bond in made.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        order = int(bond.GetBondTypeAsDouble())
        bonds[j * (j - 1) // 2 + i] = order
        total[i], total[j] = total[i] + order, total[j] + order
    for k, (kind, count) in enumerate(zip(kinds.tolist(), total, strict=True)):
        if count > VALENCES[kind]:
            got = f"atom {k + 1} ({KINDS[kind][0]}) of {shown} with bonds of order {count}"
            raise InvalidInput(FIELD, got, f"at most {VALENCES[kind]}")
    given = Given(places, kinds, bonds)
    for piece in Chem.GetMolFrags(made):
        if not int(given.lacking[list(piece)].sum()):
            got = f"atoms {', '.join(str(k + 1) for k in piece)} of {shown}"
            raise InvalidInput(FIELD, got, "a piece with a bond left to make: this one is a whole molecule")
    if given.heavy > HEAVY:
        raise InvalidInput(FIELD, f"{given.heavy} atoms besides hydrogen in {shown}", f"at most {HEAVY}")
    return given
