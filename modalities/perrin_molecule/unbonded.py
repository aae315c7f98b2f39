"""Runs EDM and GeoLDM (see `perrin_molecule.published`): bonds come from lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from perrin import diffusion as d
from perrin.diffusion.denoiser import Denoiser
from perrin.diffusion.sampling import Run
from perrin.diffusion.state import Fields, zero_centre
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.models import ModelCard
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin_molecule.data import ATOMS
from perrin_molecule.egnn import Egnn
from perrin_molecule.face import MoleculeParameters
from perrin_molecule.metrics import Molecule, by_length
from perrin_molecule.published import ELEMENTS
from perrin_molecule.sizes import draw

__all__ = ["Unbonded"]


class Unbonded:
    """A model of positions and features on one device; with a decoder, the features are latent."""

    def __init__(self, card: ModelCard, device: str) -> None:
        """Read the networks of ``card``.

        Raises:
            ModelError: they do not fit their card.
        """
        self.card, self.device = card, device
        kinds: dict[str, Any] = {"egnn": Egnn}
        self._process = d.process.from_config(card.process)
        network = load_network(card, "egnn", device, kinds=kinds)
        self._features = int(card.architecture["egnn"]["features"])
        self._denoiser = Denoiser(network, self._process, card.prediction)
        self._decoder = load_network(card, "decoder", device, kinds=kinds) if "decoder" in card.architecture else None
        self._sizes = {int(size): int(count) for size, count in card.data["sizes"].items()}

    def start(self, p: MoleculeParameters, seeds: list[int], inputs: Mapping[str, InputFile]) -> Run:
        """A run at its first row."""
        if p.sampler is None or p.steps is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        sizes = draw(self._sizes, seeds) if p.atoms is None else [p.atoms] * len(seeds)
        plan = plan_of(self.card, p.sampler, d.grid.linspace(self._process, p.steps))
        mask = torch.arange(ATOMS) < torch.tensor(sizes)[:, None]
        return d.start(
            self._denoiser,
            {"positions": plan, "features": plan},
            shape={"positions": (ATOMS, 3), "features": (ATOMS, self._features)},
            seeds=seeds,
            mask=mask.to(self.device),
            spaces={"positions": zero_centre, "features": _there},
            device=self.device,
        )

    @torch.inference_mode()
    def molecules(self, clean: Fields, inputs: Mapping[str, InputFile]) -> list[Molecule]:
        """The molecules of clean states: the likeliest element of each atom, bonds by EDM's table."""
        if self._decoder is not None:
            clean = Fields(self._decoder(clean), clean.mask)
        assert clean.mask is not None
        found = []
        for k, size in enumerate(clean.mask.sum(1).tolist()):
            kinds = clean["features"][k, :size, :ELEMENTS].argmax(-1).cpu()
            found.append(by_length(Molecule(clean["positions"][k, :size].cpu(), kinds, torch.empty(0))))
        return found


def _there(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return x if mask is None else x * mask[..., None]
