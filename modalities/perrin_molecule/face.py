"""The face of the molecule modality: what can be asked for. No torch, no RDKit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator
from pydantic_core import PydanticCustomError

from perrin.errors import InvalidInput
from perrin.inputs import Input
from perrin.modality import Format, Modality, Parameters, View
from perrin.models import ModelCard

__all__ = ["ELEMENTS", "MoleculeParameters", "atoms_of", "modality"]

ELEMENTS = ("H", "C", "N", "O", "F")

WANTED: dict[str, JsonValue] = {"group": "What it should be like"}

PROPERTIES = ("gap", "dipole", "polarisability", "weight", "qed")

_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


def atoms_of(formula: str) -> dict[str, int]:
    """Numbers of atoms by element of a molecular formula such as C7H10O2.

    Raises:
        ValueError: it is no formula.
    """
    if not formula or not re.fullmatch(r"(?:[A-Z][a-z]?\d{0,3})+", formula):
        raise ValueError(formula)
    found: dict[str, int] = {}
    for element, count in _PART.findall(formula):
        found[element] = found.get(element, 0) + int(count or 1)
    return found


class MoleculeParameters(Parameters):
    """Molecules to be."""

    count: int = Field(1, ge=1, le=2000, title="Count", description="How many molecules to make.")
    temperature: float | None = Field(
        None,
        gt=0,
        le=2,
        title="Temperature",
        description="Of the draws of atoms and bonds: lower: more stable, less varied; 1 is as trained.",
    )
    atoms: int | None = Field(
        None,
        ge=1,
        title="Atoms",
        json_schema_extra=WANTED,
        description="Number of atoms, hydrogens included. Left out: drawn as often as the training data have it.",
    )
    formula: str | None = Field(
        None,
        max_length=60,
        title="Formula",
        json_schema_extra=WANTED,
        description="Composition, such as C7H10O2, with every hydrogen.",
    )
    gap: float | None = Field(
        None, title="Gap", json_schema_extra=WANTED, description="HOMO-LUMO gap in eV, of B3LYP as in QM9."
    )
    dipole: float | None = Field(None, title="Dipole", json_schema_extra=WANTED, description="Dipole moment in debye.")
    polarisability: float | None = Field(
        None, title="Polarisability", json_schema_extra=WANTED, description="Isotropic polarisability in bohr^3."
    )
    weight: float | None = Field(
        None, title="Weight", json_schema_extra=WANTED, description="Molecular weight in g/mol, by the formula."
    )
    qed: float | None = Field(
        None, title="QED", json_schema_extra=WANTED, description="Drug-likeness, from 0 to 1 (QED of Bickerton et al.)."
    )
    fragment: Annotated[str, Input("text/plain", "chemical/*")] | None = Field(
        None,
        title="Fragment",
        json_schema_extra=WANTED,
        description="Atoms to be kept where they are: an SDF, an XYZ, or a SMILES with coordinates. Several pieces are "
        "joined.",
    )
    bonds: Literal["generated", "lengths"] = Field(
        "generated",
        title="Bonds",
        description="lengths: read from distances by EDM's table instead, without charges, for comparison.",
    )
    relax: Literal["no", "mmff"] = Field(
        "no",
        title="Relax",
        description="mmff: minimise the energy by the MMFF94 force field afterwards; the result says so.",
    )

    @field_validator("formula")
    @classmethod
    def _formula(cls, formula: str | None) -> str | None:
        if formula is None:
            return None
        try:
            found = atoms_of(formula)
        except ValueError:
            raise PydanticCustomError("formula", "a molecular formula such as C7H10O2") from None
        unknown = sorted(set(found) - set(ELEMENTS))
        if unknown:
            raise PydanticCustomError("formula", "elements {known}, not {unknown}", {
                "known": ", ".join(ELEMENTS), "unknown": ", ".join(unknown),
            })  # fmt: skip
        if min(found.values()) < 1:
            raise PydanticCustomError("formula", "at least one atom of each element that is named")
        order = [e for e in ("C", "H") if e in found] + sorted(set(found) - {"C", "H"})
        return "".join(f"{element}{found[element] if found[element] > 1 else ''}" for element in order)

    def resolved(self, card: ModelCard) -> Self:
        """The same request with the model's defaults; checks numbers of atoms and the properties' ranges.

        Raises:
            InvalidInput: names the field and what this model allows.
        """
        result = super().resolved(card)
        if result.guidance is None:
            result = result.model_copy(update={"guidance": 1.0})
        sizes = sorted(int(size) for size in card.data.get("sizes", {}))
        most, least = sizes[-1], sizes[0]
        within = f"{least} to {most} atoms, hydrogens included, for model {card.name}"
        if result.atoms is not None and not least <= result.atoms <= most:
            raise InvalidInput("atoms", result.atoms, within)
        if result.formula is not None:
            total = sum(atoms_of(result.formula).values())
            if not least <= total <= most:
                raise InvalidInput("formula", result.formula, within)
            if result.atoms not in (None, total):
                raise InvalidInput("atoms", result.atoms, f"{total}, as the formula {result.formula} has, or no number")
        known: Mapping[str, Any] = card.data.get("properties", {})
        for name in PROPERTIES:
            value = getattr(result, name)
            if value is None:
                continue
            told = {*card.conditioners.get("properties", ()), *card.conditioners.get("more", ())}
            if name not in told or (name == "weight" and "formulas" not in card.data):
                raise InvalidInput(name, value, f"no value: model {card.name} was not trained for it")
            if name == "weight" and result.formula is not None:
                raise InvalidInput(name, value, f"no value beside the formula {result.formula}, which has its weight")
            low, high = known[name]["range"]
            if not low <= value <= high:
                raise InvalidInput(name, value, f"{low:g} to {high:g}, the range of the training data")
        if "noise" not in card.data:  # it makes no kinds and bonds that could be sharpened or kept to
            for name in ("formula", "temperature"):
                if getattr(result, name) is not None:
                    raise InvalidInput(name, getattr(result, name), f"no value: model {card.name} makes no bonds")
            result = result.model_copy(update={"bonds": "lengths"})
        if result.fragment is not None and "fragment" not in card.conditioners:
            raise InvalidInput("fragment", "a file", f"none: model {card.name} was not trained to complete molecules")
        if result.fragment is not None and result.relax != "no":
            raise InvalidInput("relax", result.relax, "no: it would move the atoms of the fragment")
        if result.guidance != 1 and not result.targets.keys() - {"weight"}:
            raise InvalidInput("guidance", result.guidance, "a property as well, such as gap: 1 is no guidance")
        return result

    @property
    def targets(self) -> dict[str, float]:
        """The properties that are asked for."""
        return {name: getattr(self, name) for name in PROPERTIES if getattr(self, name) is not None}


modality = Modality(
    name="molecule",
    title="Molecule",
    summary="Small organic molecules with coordinates and bonds.",
    parameters=MoleculeParameters,
    view=View.MOLECULE,
    formats=(
        Format("sdf", "chemical/x-mdl-sdfile", many=True),
        Format("xyz", "chemical/x-xyz", many=True),
        Format("smi", "chemical/x-daylight-smiles", many=True),
        Format("png", "image/png", many=True),
        Format("csv", "text/csv", many=True),
        Format("gif", "image/gif"),
    ),
    runtime="perrin_molecule.runtime:MoleculeRuntime",
    default_model="qm9",
    package="perrin_molecule",
    examples=(
        {"count": 6, "seed": 11},
        {"formula": "C7H10O2", "count": 4, "seed": 3},
        {"gap": 4.5, "count": 4, "seed": 5},
        {"weight": 110.0, "qed": 0.6, "count": 4, "seed": 7},
    ),
)
