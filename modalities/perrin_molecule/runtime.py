"""Runs molecule models, and reports on what they make.

Most make positions, kinds of atoms and bonds (`perrin_molecule.bonded`); EDM's and GeoLDM's leave the bonds to a table
of lengths (`perrin_molecule.unbonded`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch

from perrin.diffusion.sampling import Run
from perrin.diffusion.solvers import solver
from perrin.diffusion.state import Fields
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard
from perrin_molecule.bonded import Bonded
from perrin_molecule.checks import Made, results
from perrin_molecule.face import MoleculeParameters
from perrin_molecule.metrics import Molecule, by_length, to_rdkit
from perrin_molecule.unbonded import Unbonded
from perrin_molecule.writing import drawing, write

__all__ = ["MoleculeRuntime"]

CLOSEST = 0.3
"""In angstrom; atoms that all lie nearer to each other are no molecule."""


class Maker(Protocol):
    """What makes molecules: a network and how it is sampled."""

    def start(self, p: MoleculeParameters, seeds: list[int], inputs: Mapping[str, InputFile]) -> Run:
        """A run at its first row, one sample for each seed."""
        ...

    def molecules(self, clean: Fields, inputs: Mapping[str, InputFile]) -> list[Molecule]:
        """The molecules of clean states."""
        ...


class MoleculeRuntime:
    """A molecule model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, maker: Maker) -> None:
        self.card, self.device, self._maker = card, device, maker

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the networks of ``card`` onto ``device``.

        Raises:
            ModelError: the model is none of molecules, or its files are broken.
        """
        if "molecule" in card.architecture and {"scale", "noise", "sizes"} <= card.data.keys():
            return cls(card, device, Bonded(card, device))
        if "egnn" in card.architecture and {"scale", "sizes"} <= card.data.keys():
            return cls(card, device, Unbonded(card, device))
        raise ModelError(f"model {card.name}: wanted a network of molecules, got {', '.join(card.architecture)}")

    def start(self, parameters: MoleculeParameters, inputs: Mapping[str, InputFile]) -> Run:
        """Draw how many atoms each molecule has, and set its fields up.

        Raises:
            InvalidInput: a sampler that is no good here, or a fragment that cannot be completed so.
        """
        p = parameters
        if p.seed is None or p.sampler is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        if not solver(p.sampler).one_each:
            raise InvalidInput("sampler", p.sampler, "one with an evaluation a step, such as ddpm or ddim")
        return self._maker.start(p, [int(p.item(number)["seed"]) for number in range(p.count)], inputs)

    @torch.inference_mode()
    def preview(self, clean: Fields) -> bytes | None:
        """A drawing of the first molecule as it is believed to be."""
        first = Fields({name: x[:1] for name, x in clean.items()}, None if clean.mask is None else clean.mask[:1])
        made = to_rdkit(self._maker.molecules(first, {})[0])
        made.UpdatePropertyCache(strict=False)
        return drawing([made])

    def decode(self, clean: Fields, parameters: MoleculeParameters, inputs: Mapping[str, InputFile]) -> Sequence[Made]:
        """The molecules with their reports; relaxed, and with bonds by length, where that was asked for."""
        made = self._maker.molecules(clean, inputs)
        if parameters.bonds == "lengths":
            made = [by_length(one) for one in made]
        return results(made, relax=parameters.relax == "mmff")

    def check(self, result: Made) -> None:
        """Refuse a molecule whose atoms all lie in one place, or anywhere but in space."""
        places = result.molecule.GetConformer().GetPositions()
        if not np.isfinite(places).all():
            raise Degenerate("the molecule has coordinates that are no numbers; try another sampler or more steps")
        if len(places) > 1 and np.ptp(places, axis=0).max() < CLOSEST:
            raise Degenerate("all atoms of the molecule lie in one place; try another seed, sampler or more steps")

    def export(self, results: Sequence[Made], format: Format, metadata: Mapping[str, Any]) -> bytes:
        """One file that holds ``results`` and ``metadata``."""
        return write(results, format.media_type, metadata)
