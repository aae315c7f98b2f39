"""Trains what is added to a molecule model so that it completes molecules, and hears of weight and drug-likeness.

The model's own weights stay as they are. Beside them low-rank adapters are trained, and a small network of the further
condition whose last layer is zero at first. A request that asks for none of this is computed without any of it.

In most steps some atoms of each molecule are given, clean and at time zero (see `perrin_molecule.parts`); the origin is
their middle, and the noise of the others is centred nowhere, since nobody knows the middle of what is to be.

References:
    Hu et al., LoRA (2021); Chen et al., Diffusion Forcing (2024), for a time of each point; Igashov et al., DiffLinker
    (2024), section 3.3, for the origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from perrin.diffusion.state import Fields
from perrin.modality import Progress
from perrin.models import find
from perrin.training.adapters import AdapterOptions, LowRank, inject
from perrin_molecule.data import PROPERTIES, TOLD
from perrin_molecule.extended import FILE
from perrin_molecule.network import MoleculeNetwork, estimate_of, restored
from perrin_molecule.parts import chosen
from perrin_molecule.training import CLASSES, Batch, MoleculeTask

__all__ = ["CompletingTask", "Completion"]

MORE = PROPERTIES[TOLD:]


class Completion(NamedTuple):
    """A batch, which of the further properties are told (B, C), and which atoms are (B, N), or None: no atom is."""

    batch: Batch
    more: Tensor
    fixed: Tensor | None


class CompletingTask(MoleculeTask):
    """Options: those of `MoleculeTask`; ``base`` (the model that is added to), ``rank`` (of the adapters),
    ``fixed_share`` (of the steps in which atoms are given)."""

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self._base = find(options.get("base", "qm9"), "molecule")
        known = {k: v for k, v in self._base.architecture["molecule"].items() if k != "kind"}
        super().__init__({**options, "network": {**known, "more": 2 * len(MORE)}}, data, folders)
        assert isinstance(self.network, MoleculeNetwork)
        weights = {key: value.float() for key, value in load(self._base.read("molecule.safetensors")).items()}
        missing = self.network.load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys
        assert all(key.startswith("more.") for key in missing.missing_keys)
        torch.manual_seed(1)
        inject(self.network, AdapterOptions(rank=self.options.get("rank", 6), layers=r"body\.layers\."))
        assert self.network.more is not None
        self.network.more.requires_grad_(True)

    def prepare(self, progress: Progress) -> None:
        """As of the model; and the loss of molecules that lie where their given atoms do."""
        super().prepare(progress)
        self._loose = self.objective.loss({}, CLASSES)

    def batch(self, size: int, generator: np.random.Generator, part: int = 0) -> Completion:  # type: ignore[override]
        """Molecules of one class of sizes, and what is told of them."""
        batch = super().batch(size, generator, part)
        more = generator.random((size, len(MORE))) < 2 / 3
        more &= (generator.random(size) >= self.options.get("property_dropout", 0.6))[:, None]
        fixed = None
        if generator.random() < self.options.get("fixed_share", 0.65):
            kinds, bonds = (t[batch.chosen].cpu().numpy() for t in (self.set.kinds, self.set.bonds))
            sizes = self.set.sizes[batch.chosen].tolist()
            told = [chosen(k[: batch.atoms], b, n, generator) for k, b, n in zip(kinds, bonds, sizes, strict=True)]
            fixed = torch.from_numpy(np.stack(told))
        return Completion(batch, torch.from_numpy(more), fixed)

    def loss(  # type: ignore[override]
        self, network: nn.Module, batch: Completion, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As of the model, of the atoms that are not given."""
        (picked, atoms, told), more, fixed = batch
        device = next(network.parameters()).device
        values, clean = self.set.properties[picked].to(device), self.state(picked, atoms)
        condition = {
            "context": self.context(values[:, :TOLD], told.to(device)),
            "more": self.more(values[:, TOLD:], more.to(device)),
        }
        twice = bool(torch.rand((), generator=generator) < 0.5)
        if fixed is not None:
            clean = _laid(clean, fixed)

        def asked(state: Fields, t: Tensor, **condition: Tensor) -> Any:
            known: dict[str, Any] = {**condition, "fixed": fixed}
            if fixed is not None:
                state = restored(state, clean, fixed)
            if twice:
                with torch.no_grad():
                    known["estimate"] = estimate_of(network(state, t, **known))
                torch.clear_autocast_cache()
            return network(state, t, **known)

        return (self._loss if fixed is None else self._loose)(asked, clean, condition, generator)

    def more(self, values: Tensor, told: Tensor) -> Tensor:
        """(B, 2 C): standardised further properties, zero where they are not told, and which are told."""
        mean, deviation = self._standard[:, TOLD:].to(values.device)
        return torch.cat([(values - mean) / deviation * told, told.to(values)], -1)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The losses on validation molecules, with atoms given and with none."""
        found: dict[str, list[float]] = {"given": [], "free": []}
        for k in range(rounds := self.options.get("validation_rounds", 24)):
            batch = self.batch(64, np.random.default_rng([5, k]), part=1)
            total, _ = self.loss(network, batch, torch.Generator().manual_seed(k))
            found["free" if batch.fixed is None else "given"].append(float(total))
        return {f"validation_{name}": sum(v) / max(1, len(v)) for name, v in found.items()} | {"rounds": rounds}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the model with what is added to it: ``completion.safetensors`` has the adapters under PEFT's names, and
        the small network, in bf16."""
        assert isinstance(network, MoleculeNetwork)
        assert network.more is not None
        tensors = {f"more.{name}": tensor for name, tensor in network.more.state_dict().items()}
        for name, layer in network.named_modules():
            if isinstance(layer, LowRank):
                tensors |= {f"{name}.lora_A.weight": layer.lora_A, f"{name}.lora_B.weight": layer.lora_B}
        save_file({k: v.detach().bfloat16().contiguous() for k, v in tensors.items()}, folder / FILE)
        (folder / "molecule.safetensors").write_bytes(self._base.read("molecule.safetensors"))
        kept = self._base.model_dump(include={"architecture", "process", "prediction", "attributions"})
        told = {"properties": list(PROPERTIES[:TOLD]), "more": list(MORE), "fragment": True}
        return {**kept, "conditioners": told, "data": self.facts}


def _laid(clean: Fields, fixed: Tensor) -> Fields:
    """``clean`` with the middle of the given atoms in the origin."""
    assert clean.mask is not None
    here = fixed[..., None].to(clean["positions"])
    middle = (clean["positions"] * here).sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp(min=1)
    return Fields({**clean, "positions": (clean["positions"] - middle) * clean.mask[..., None]}, clean.mask)
