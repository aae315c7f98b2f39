"""Runs molecule models: positions, kinds of atoms and bonds of many molecules in one run of the core.

A state is padded to the most atoms that the model knows, so that a molecule's noise never depends on its neighbours'
size; the network itself is called on molecules of like size, cropped to the longest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.diffusion.categorical import Categorical
from perrin.diffusion.noise import uniforms
from perrin.diffusion.sampling import Run
from perrin.diffusion.solvers import solver
from perrin.diffusion.state import Fields, zero_centre
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.modality import Format
from perrin.models import ModelCard
from perrin.models.plans import plan_of
from perrin.models.weights import load_network
from perrin_molecule.checks import Made, results
from perrin_molecule.data import BONDS, KINDS
from perrin_molecule.face import MoleculeParameters
from perrin_molecule.known import Kept, Towards, composition
from perrin_molecule.metrics import to_rdkit
from perrin_molecule.network import MoleculeNetwork
from perrin_molecule.sampling import molecules_of
from perrin_molecule.writing import drawing, write

__all__ = ["MoleculeRuntime", "Tempered"]

NETWORK_CALL = 24
"""Molecules in one call of the network on a CPU: more make no call faster, and are padded more."""

CLOSEST = 0.3
"""In angstrom; atoms that all lie nearer to each other are no molecule."""


class Tempered(nn.Module):
    """A `MoleculeNetwork` as the core calls it: beliefs sharpened by a temperature, molecules of like size together.

    Told the last estimate, whose beliefs are sharp, it gives the network what it had said.

    Args:
        network: the network.
        at_once: molecules in a call.
        fast: products are computed in bfloat16.
    """

    def __init__(self, network: MoleculeNetwork, at_once: int, fast: bool = False) -> None:
        super().__init__()
        self.network, self.at_once, self.fast = network, at_once, fast

    def forward(
        self, state: Fields, t: Tensor, context: Tensor, temperature: Tensor, **estimate: Tensor
    ) -> dict[str, Tensor]:
        """Clean positions, and logits over the temperature (1 or B,), of a state padded to any length."""
        assert state.mask is not None
        sizes = state.mask.sum(1)
        whole = {"positions": torch.zeros_like(state["positions"])}
        whole |= {n: t.new_zeros(*state[n].shape, k) for n, k in (("kinds", len(KINDS)), ("bonds", BONDS))}
        context, temperature = context.expand(len(t), -1), temperature.expand(len(t))
        for chosen in sizes.argsort(stable=True).split(self.at_once):
            longest = int(sizes[chosen].max())
            lengths = {"positions": longest, "kinds": longest, "bonds": longest * (longest - 1) // 2}
            part = Fields({n: state[n][chosen, :m] for n, m in lengths.items()}, state.mask[chosen, :longest])
            heat = temperature[chosen][:, None, None]
            known = {n.removeprefix("estimate."): x[chosen] for n, x in estimate.items()}
            known = {n: _spread(x[:, : lengths[n]], None if n == "positions" else heat) for n, x in known.items()}
            with torch.autocast(t.device.type, torch.bfloat16, enabled=self.fast):
                answer = self.network(part, t[chosen], context=context[chosen], estimate=known or None)
            for name, length in lengths.items():
                said = answer[name].to(whole[name])
                whole[name][chosen, :length] = said if name == "positions" else said / heat
        return whole


def _spread(x: Tensor, heat: Tensor | None) -> Tensor:
    """Sharpened chances (B, N, K) as they were; positions as they are."""
    if heat is None:
        return x
    soft = x.clamp(min=1e-30) ** heat
    return soft / soft.sum(-1, keepdim=True)


class MoleculeRuntime:
    """A molecule model on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
    """

    def __init__(self, card: ModelCard, device: str, network: nn.Module) -> None:
        self.card, self.device = card, device
        facts = card.data
        self._scale = float(facts["scale"])
        self._noise = {name: tuple(facts["noise"][name]) for name in ("kinds", "bonds")}
        self._sizes = {int(size): int(count) for size, count in facts["sizes"].items()}
        self._known = cast(Sequence[str], card.conditioners["properties"])
        self._process = d.process.from_config(card.process)
        fast = device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        tempered = Tempered(cast(MoleculeNetwork, network), NETWORK_CALL if device == "cpu" else 4096, fast)
        predictions = {"positions": card.prediction, "kinds": "logits", "bonds": "logits"}
        self._denoiser = d.Denoiser(tempered, self._process, predictions, recall=True)

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the network of ``card`` onto ``device``.

        Raises:
            ModelError: the model is none of molecules with bonds, or its files are broken.
        """
        if "molecule" not in card.architecture or not {"scale", "noise", "sizes"} <= card.data.keys():
            raise ModelError(f"model {card.name}: wanted a network of molecules, got {', '.join(card.architecture)}")
        return cls(card, device, load_network(card, "molecule", device, kinds={"molecule": MoleculeNetwork}))

    def start(self, parameters: MoleculeParameters) -> Run:
        """Draw how many atoms each molecule has, and set its fields up.

        Raises:
            InvalidInput: a sampler that is no good here.
        """
        p = parameters
        if p.seed is None or p.steps is None or p.sampler is None or p.temperature is None:
            raise InvalidInput("parameters", p, "resolved ones: call Parameters.resolved first")
        seeds = [int(p.item(number)["seed"]) for number in range(p.count)]
        kinds = composition(p.formula) if p.formula is not None else None
        sizes = self._sizes_of(p, seeds) if kinds is None else [len(kinds)] * len(seeds)
        most = max(self._sizes)
        if not solver(p.sampler).one_each:
            raise InvalidInput("sampler", p.sampler, "one with an evaluation a step, such as ddpm or ddim")
        grid = d.grid.shifted(self._process, p.steps, shift=1.0)
        plans: dict[str, Any] = {"positions": plan_of(self.card, p.sampler, grid)}
        for name, noise in self._noise.items():
            plans[name] = Categorical(len(noise), noise).plan(grid.alpha)
        mask = torch.arange(most) < torch.tensor(sizes)[:, None]
        told = {"temperature": torch.tensor([p.temperature], device=self.device)}
        guidance: Any = Towards(self._denoiser, p.guidance or 1.0, {"context": self._context({}), **told})
        if kinds is not None:
            guidance = Kept(guidance, kinds)
        return d.start(
            guidance,
            plans,
            shape={"positions": (most, 3), "kinds": (most,), "bonds": (most * (most - 1) // 2,)},
            seeds=seeds,
            condition={"context": self._context(p.targets), **told},
            mask=mask.to(self.device),
            spaces={"positions": zero_centre},
            device=self.device,
        )

    def _sizes_of(self, p: MoleculeParameters, seeds: Sequence[int]) -> list[int]:
        """The number of atoms of each molecule, from its seed where it is not said."""
        if p.atoms is not None:
            return [p.atoms] * len(seeds)
        known = list(self._sizes)
        chances = np.cumsum([self._sizes[size] for size in known], dtype=np.float64)
        drawn = uniforms(seeds, 0, (1,), "atoms")[:, 0] * chances[-1]
        return [known[int(k)] for k in np.searchsorted(chances, drawn)]

    def _context(self, targets: Mapping[str, float]) -> Tensor:
        """(1, 2 C): standardised properties, and which are told."""
        spread = self.card.data["properties"]
        values = [
            (targets[n] - spread[n]["mean"]) / spread[n]["deviation"] if n in targets else 0.0 for n in self._known
        ]
        return torch.tensor([[*values, *(float(n in targets) for n in self._known)]], device=self.device)

    @torch.inference_mode()
    def preview(self, clean: Fields) -> bytes | None:
        """A drawing of the first molecule as it is believed to be."""
        first = Fields({name: self._certain(name, x[:1]) for name, x in clean.items()}, clean.mask[:1])  # type: ignore[index]
        made = to_rdkit(molecules_of(first, self._scale)[0])
        made.UpdatePropertyCache(strict=False)
        return drawing([made])

    @staticmethod
    def _certain(name: str, x: Tensor) -> Tensor:
        """Classes from beliefs, or as they are."""
        return x.argmax(-1) if x.is_floating_point() and name != "positions" else x

    def decode(self, clean: Fields, parameters: MoleculeParameters) -> Sequence[Made]:
        """The molecules with their reports, relaxed where that was asked for."""
        return results(molecules_of(clean, self._scale), relax=parameters.relax == "mmff")

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
