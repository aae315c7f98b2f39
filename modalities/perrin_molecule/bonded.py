"""Runs models that make bonds beside positions and kinds of atoms, all in one run of the core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion.denoiser import Denoiser
from perrin.diffusion.sampling import Run
from perrin.diffusion.state import Fields
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.models import ModelCard
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin_molecule.data import KINDS
from perrin_molecule.extended import FILE, extended
from perrin_molecule.face import MoleculeParameters, atoms_of
from perrin_molecule.given import Given, read_fragment
from perrin_molecule.known import Kept, Towards, composition, of_weight
from perrin_molecule.likelihood import bound
from perrin_molecule.metrics import Molecule
from perrin_molecule.network import MoleculeNetwork
from perrin_molecule.sampling import FIXED, denoiser_of, molecules_of, started
from perrin_molecule.sizes import draw

__all__ = ["Bonded"]

NETWORK_CALL = 24
"""Molecules in one call of the network on a CPU: more make no call faster, and are padded more."""

NO_ROOM = "a smaller fragment: the model has no room for what would complete it"


class Bonded:
    """A model of positions, kinds and bonds on one device."""

    def __init__(self, card: ModelCard, device: str) -> None:
        """Read the network of ``card``, and what was trained beside it.

        Raises:
            ModelError: they do not fit their card.
        """
        self.card, self.device = card, device
        network = cast(MoleculeNetwork, load_network(card, "molecule", device, kinds={"molecule": MoleculeNetwork}))
        facts = card.data
        self._scale = float(facts["scale"])
        self._noise = {name: tuple(facts["noise"][name]) for name in ("kinds", "bonds")}
        self._sizes = {int(size): int(count) for size, count in facts["sizes"].items()}
        self._known, self._more = (cast(Sequence[str], card.conditioners.get(n, ())) for n in ("properties", "more"))
        self._process = d.process.from_config(card.process)
        self._denoiser = self._denoiser_of(network)
        self._extended = None if FILE not in card.files else self._denoiser_of(extended(card, network))

    def _denoiser_of(self, network: MoleculeNetwork) -> Denoiser:
        fast = self.device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return denoiser_of(network, self._process, NETWORK_CALL if self.device == "cpu" else 4096, fast)

    def start(self, p: MoleculeParameters, seeds: list[int], inputs: Mapping[str, InputFile]) -> Run:
        """A run at its first row.

        Raises:
            InvalidInput: a fragment that cannot be completed so.
        """
        if p.steps is None or p.sampler is None or p.temperature is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        given = self._given(inputs)
        kinds = self._kinds_of(p, seeds, given)
        sizes = self._sizes_of(p, seeds, given) if kinds is None else [len(own) for own in kinds]
        grid = d.grid.shifted(self._process, p.steps, shift=1.0)
        told = {"temperature": torch.tensor([p.temperature], device=self.device)}
        null = {**told, "context": self._context({}, self._known)}
        condition = {**told, "context": self._context(p.targets, self._known)}
        denoiser = self._denoiser
        targets = {name: value for name, value in p.targets.items() if name != "weight"}  # kept to by the formula
        if self._extended is not None and (given is not None or targets.keys() & {*self._more}):
            denoiser = self._extended
            fixed = {} if given is None else self._conditions(given)
            null |= {"more": self._context({}, self._more), **fixed}
            condition |= {"more": self._context(targets, self._more), **fixed}
        guidance: Any = Towards(denoiser, p.guidance or 1.0, null)
        if kinds is not None:
            guidance = Kept(guidance, kinds)
        positions = plan_of(self.card, p.sampler, grid)
        return started(guidance, positions, grid, self._noise, sizes, seeds, condition, max(self._sizes), self.device)

    @staticmethod
    def _given(inputs: Mapping[str, InputFile]) -> Given | None:
        return read_fragment(inputs["fragment"].data) if "fragment" in inputs else None

    def _conditions(self, given: Given) -> dict[str, Tensor]:
        """What is given, padded, as conditions of one sample; the origin is its middle."""
        most, count = max(self._sizes), len(given.kinds)
        places = torch.tensor(given.places - given.places.mean(0), dtype=torch.float32) / self._scale
        made = {
            "atoms": torch.zeros(1, most),
            "positions": torch.zeros(1, most, 3),
            "kinds": torch.zeros(1, most, dtype=torch.long),
            "bonds": torch.zeros(1, most * (most - 1) // 2, dtype=torch.long),
        }
        made["atoms"][0, :count], made["positions"][0, :count], made["kinds"][0, :count] = 1, places, given.kinds
        made["bonds"][0, : len(given.bonds)] = given.bonds
        return {f"{FIXED}{name}": tensor.to(self.device) for name, tensor in made.items()}

    def _kinds_of(self, p: MoleculeParameters, seeds: Sequence[int], given: Given | None) -> list[Tensor] | None:
        """The kinds of each molecule's atoms, where a formula or a weight says them."""
        first = None if given is None else given.kinds
        if p.formula is not None:
            self._sizes_of(p, seeds, given)
            return [composition(p.formula, first)] * len(seeds)
        if p.weight is None:
            return None
        known: dict[str, int] = self.card.data["formulas"]
        least, most = (min(self._sizes), max(self._sizes)) if given is None else given.range
        room = {name: atoms_of(name) for name in known}
        held = Counter() if first is None else Counter(KINDS[kind][0] for kind in first.tolist())
        fits = {
            name: known[name]
            for name, counts in room.items()
            if least <= sum(counts.values()) <= most
            and p.atoms in (None, sum(counts.values()))
            and all(counts.get(element, 0) >= count for element, count in held.items())
            and sum(counts.values()) > held.total()
        }
        if not fits:
            what = f"{p.atoms} atoms" if given is None else "this fragment"
            raise InvalidInput("weight", p.weight, f"no value: no molecule of the training data goes with {what}")
        return [composition(name, first) for name in of_weight(fits, p.weight, seeds)]

    def _sizes_of(self, p: MoleculeParameters, seeds: Sequence[int], given: Given | None) -> list[int]:
        """The number of atoms of each molecule, from its seed where it is not said."""
        least, most = (min(self._sizes), max(self._sizes)) if given is None else given.range
        wanted = p.atoms if p.formula is None else sum(atoms_of(p.formula).values())
        known = [
            size for size in self._sizes if max(least, 0 if given is None else len(given.kinds) + 1) <= size <= most
        ]
        if not known:
            raise InvalidInput("fragment", f"{len(given.kinds) if given else 0} atoms", NO_ROOM)
        if wanted is not None:
            if given is not None and not known[0] <= wanted <= known[-1]:
                field, said = ("atoms", p.atoms) if p.formula is None else ("formula", p.formula)
                raise InvalidInput(field, said, f"{known[0]} to {known[-1]} atoms, which this fragment can be part of")
            return [wanted] * len(seeds)
        return draw({size: self._sizes[size] for size in known}, seeds)

    def _context(self, targets: Mapping[str, float], names: Sequence[str]) -> Tensor:
        """(1, 2 C): standardised properties of these names, and which are told."""
        spread = self.card.data["properties"]
        values = [(targets[n] - spread[n]["mean"]) / spread[n]["deviation"] if n in targets else 0.0 for n in names]
        return torch.tensor([[*values, *(float(n in targets) for n in names)]], device=self.device)

    def molecules(self, clean: Fields, inputs: Mapping[str, InputFile]) -> list[Molecule]:
        """The molecules of clean states, or of beliefs about them; a fragment's atoms exactly in place."""
        certain = {
            name: x.argmax(-1) if name != "positions" and x.is_floating_point() else x for name, x in clean.items()
        }
        made = molecules_of(Fields(certain, clean.mask), self._scale)
        given = self._given(inputs)
        return made if given is None else [given.within(one) for one in made]

    def likelihood(self, molecules: Sequence[Molecule], draws: int = 20, seed: int = 0) -> Tensor:
        """(M,) bounds on -log p of molecules, given their numbers of atoms, in nats; see `likelihood.bound`."""
        sizes = [len(one.kinds) for one in molecules]
        most = max(sizes)
        mask = torch.arange(most) < torch.tensor(sizes)[:, None]
        tensors = {
            "positions": torch.zeros(len(sizes), most, 3),
            "kinds": torch.zeros(len(sizes), most, dtype=torch.long),
            "bonds": torch.zeros(len(sizes), most * (most - 1) // 2, dtype=torch.long),
        }
        for k, one in enumerate(molecules):
            places = one.positions.float()
            tensors["positions"][k, : sizes[k]] = (places - places.mean(0)) / self._scale
            tensors["kinds"][k, : sizes[k]], tensors["bonds"][k, : len(one.bonds)] = one.kinds, one.bonds
        clean = Fields({name: x.to(self.device) for name, x in tensors.items()}, mask.to(self.device))
        condition = {"context": self._context({}, self._known), "temperature": torch.ones(1, device=self.device)}
        return bound(self._denoiser, clean, self._noise, condition=condition, scale=self._scale, draws=draws, seed=seed)
