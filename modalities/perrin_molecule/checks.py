"""What is right and wrong with a molecule: a report for each, beside the shares that `perrin_molecule.metrics` counts.

References:
    Buttenschoen, Morris and Deane, PoseBusters (2024), for the checks of geometry; Halgren, Merck Molecular Force Field
    (1996), for strain and relaxation.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perrin_molecule.metrics import Molecule, smiles_of, stable, to_rdkit

__all__ = ["Made", "checker", "relaxed", "results"]

ITERATIONS = 500
"""At most so many of the force field's minimisation."""


@dataclass(frozen=True)
class Made:
    """A molecule and what was found about it.

    Attributes:
        molecule: for RDKit, with coordinates in angstrom; sanitised if it is valid.
        smiles: canonical; empty if it is not valid.
        formula: molecular formula, by its atoms.
        weight: molecular weight in g/mol.
        qed: drug-likeness, 0 to 1 (Bickerton et al., 2012); None if it is not valid.
        stable: every atom has the valence of its element and charge.
        valid: RDKit can make sense of it.
        connected: it is in one piece.
        failed: the checks of PoseBusters that it does not pass, that of the energy aside, which the strain stands for;
            None if it is not valid.
        strain: energy above the nearest minimum of MMFF94 in kcal/mol; None where the force field knows not its atoms.
        relaxed: its coordinates are that minimum's.
    """

    molecule: Any
    smiles: str
    formula: str
    weight: float
    qed: float | None
    stable: bool
    valid: bool
    connected: bool
    failed: tuple[str, ...] | None
    strain: float | None
    relaxed: bool = False

    @property
    def sound(self) -> bool:
        """Stable, valid, in one piece, and nothing that PoseBusters minds."""
        return self.stable and self.valid and self.connected and self.failed == ()

    @property
    def fields(self) -> dict[str, str]:
        """The report as words, in the order in which it is shown."""
        yes = {True: "yes", False: "no"}
        return {
            "smiles": self.smiles,
            "formula": self.formula,
            "weight": f"{self.weight:.3f}",
            "qed": "" if self.qed is None else f"{self.qed:.3f}",
            "stable": yes[self.stable],
            "valid": yes[self.valid],
            "connected": yes[self.connected],
            "posebusters": "" if self.failed is None else "passed" if not self.failed else ", ".join(self.failed),
            "strain": "" if self.strain is None else f"{self.strain:.2f}",
            "relaxed": "mmff" if self.relaxed else "no",
        }


def results(molecules: Sequence[Molecule], relax: bool = False) -> list[Made]:
    """Each molecule with its report, relaxed first if that is asked for and possible."""
    with _quiet():
        made = [_looked_at(molecule, relax) for molecule in molecules]
        valid = [k for k, one in enumerate(made) if one.valid]
        failed = _busted([made[k].molecule for k in valid])
    for k, names in zip(valid, failed, strict=True):
        made[k] = Made(**{**made[k].__dict__, "failed": names})
    return made


def _looked_at(molecule: Molecule, relax: bool) -> Made:
    from rdkit import Chem
    from rdkit.Chem import QED, rdMolDescriptors

    there = torch.ones(1, len(molecule.kinds), dtype=torch.bool)
    fine = bool(stable(molecule.kinds[None], molecule.bonds[None], there).all())
    bare = to_rdkit(molecule)
    smiles, whole = smiles_of(to_rdkit(molecule))
    valid = smiles is not None
    energy: float | None = None
    moved = False
    if valid:
        Chem.SanitizeMol(bare)
        Chem.AssignStereochemistryFrom3D(bare)
        smiles = Chem.MolToSmiles(Chem.RemoveHs(bare))
        best, energy = relaxed(bare)
        if relax and energy is not None:
            bare, moved, energy = best, True, 0.0
    else:
        bare.UpdatePropertyCache(strict=False)
    return Made(
        bare,
        smiles or "",
        rdMolDescriptors.CalcMolFormula(bare),
        float(rdMolDescriptors._CalcMolWt(bare)),
        float(QED.qed(bare)) if valid else None,  # type: ignore[no-untyped-call]
        fine,
        valid,
        len(Chem.GetMolFrags(bare)) == 1 if not valid else whole,
        None,
        energy,
        moved,
    )


def relaxed(molecule: Any) -> tuple[Any, float | None]:
    """The molecule in the nearest minimum of MMFF94, and how far it was above it in kcal/mol; None: no parameters."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers

    best = Chem.Mol(molecule)
    known = rdForceFieldHelpers.MMFFGetMoleculeProperties(best)
    field = None if known is None else rdForceFieldHelpers.MMFFGetMoleculeForceField(best, known)
    if field is None:
        return molecule, None
    before = field.CalcEnergy()
    with contextlib.suppress(RuntimeError):  # a force field that runs away leaves what it had
        field.Minimize(maxIts=ITERATIONS)
    after = field.CalcEnergy()
    good = np.isfinite(after) and np.isfinite(best.GetConformer().GetPositions()).all()
    return (best, float(before - after)) if good else (molecule, None)


@lru_cache(maxsize=2)
def checker(energy: bool = False) -> Any:
    """PoseBusters' checks of a molecule by itself.

    Args:
        energy: with that of the energy against fifty conformers of its own making, which takes a second and now and
            then a minute; the strain of a report says as much in a hundredth.
    """
    import posebusters
    import yaml

    text = (Path(posebusters.__file__).parent / "config" / "mol.yml").read_text()
    config = yaml.safe_load(text)
    config["modules"] = [one for one in config["modules"] if energy or one["function"] != "energy_ratio"]
    return posebusters.PoseBusters(config=config)


def _busted(molecules: Sequence[Any]) -> list[tuple[str, ...]]:
    """For each valid molecule, the names of the checks that it does not pass."""
    if not molecules:
        return []
    table = checker().bust(list(molecules), None, None, full_report=False)
    passed = table.reset_index(drop=True).astype(bool)
    return [tuple(name for name in passed.columns if not passed.at[k, name]) for k in range(len(molecules))]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """RDKit and PoseBusters say on the console what the report says."""
    import rdkit
    from rdkit import rdBase

    blocked = rdBase.BlockLogs()
    if hasattr(rdkit, "log_handler"):
        rdkit.log_handler.stream = sys.stderr  # PoseBusters flushes the last one; closed by now, it fails a check
    logger = logging.getLogger("posebusters")
    level, logger.level = logger.level, logging.ERROR
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.level = level
        del blocked
