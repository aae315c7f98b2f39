"""Trains a molecule model on QM9: positions by flow, kinds and bonds by categorical noise, all told in one network.

The set lies on the device, and batches are gathered there. A batch has molecules of like size, so that little of it is
padding: a class of sizes is drawn as often as it has molecules. In half of the steps the network is told its own
estimate, as it is at sampling.

References:
    Vignac et al., MiDi (2023), marginal noise; Irwin et al., SemlaFlow (2024); Dunn and Koes, FlowMol3 (2025), for
    telling the last estimate; Chen et al., Analog Bits (2022), section 3.2.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin.diffusion.state import Fields, zero_centre
from perrin.modality import Progress
from perrin.training.objective import Loss, Objective
from perrin_molecule.data import ATOMS, BONDS, KINDS, PROPERTIES, TOLD, Molecules, fetch, pack, read
from perrin_molecule.metrics import stable
from perrin_molecule.network import MoleculeNetwork, estimate_of
from perrin_molecule.sampling import generate

__all__ = ["MoleculeTask", "load_network"]

CLASSES = {"kinds": len(KINDS), "bonds": BONDS}


class Batch(NamedTuple):
    """Which molecules (B,), the number of atoms they are padded to, and which of their properties are told (B, C)."""

    chosen: Tensor
    atoms: int
    told: Tensor


class MoleculeTask:
    """Options: ``network`` (of `MoleculeNetwork`), ``objective`` (of `perrin.training.objective.Objective`), ``shares``
    (of the losses of kinds and bonds), ``buckets`` (numbers of atoms that batches are padded to), ``property_dropout``
    (share of molecules of which nothing is told; of the others each property goes untold in a third),
    ``compile_layers``, ``samples`` and ``sample_steps`` (that `evaluate` draws), ``validation_rounds`` (of 256
    molecules).
    """

    weights = "molecule"
    set: Molecules

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data, self._folders = dict(options), dict(data), dict(folders)
        self._arguments = {"context": 2 * TOLD, **self.options.get("network", {})}
        torch.manual_seed(0)
        self.network: nn.Module = MoleculeNetwork(**self._arguments)
        self.buckets: Sequence[int] = self.options.get("buckets", [ATOMS])
        self._compiled = not self.options.get("compile_layers", False)

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack QM9, and measure what the objective and the card need of it."""
        folder = self._folders["data"] / "molecule"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "qm9.safetensors"
        if not path.exists():
            pack(fetch(folder), path, progress)
        whole = read(path)
        self.facts = _facts(whole, self._folders["out"] / "facts.json")
        spread = self.facts["properties"]
        self._standard = torch.tensor([[spread[name][k] for name in PROPERTIES] for k in ("mean", "deviation")])
        self.set = whole._replace(positions=whole.positions / self.facts["scale"])
        fields = {
            name: {**self.options.get("shares", {}).get(name, {}), "noise": self.facts["noise"][name]}
            for name in CLASSES
        }
        objective = {"prediction": "x0", **self.options.get("objective", {})}
        self.objective = Objective.model_validate({**objective, "fields": fields})
        self._loss: Loss = self.objective.loss({"positions": zero_centre}, CLASSES)
        limits = torch.tensor(self.buckets)
        bucket = torch.bucketize(self.set.sizes, limits)
        if int(bucket.max()) >= len(limits):
            raise ValueError(f"buckets end at {self.buckets[-1]} atoms; the data have {int(self.set.sizes.max())}")
        self._members = {
            part: [torch.nonzero((bucket == k) & (self.set.part == part)).flatten().numpy() for k in range(len(limits))]
            for part in (0, 1)
        }

    def batch(self, size: int, generator: np.random.Generator, part: int = 0) -> Batch:
        """Molecules of one class of sizes."""
        members = self._members[part]
        shares = np.array([len(m) for m in members], float)
        which = int(generator.choice(len(members), p=shares / shares.sum()))
        chosen = generator.choice(members[which], size)
        told = generator.random((size, TOLD)) < 2 / 3
        told &= (generator.random(size) >= self.options.get("property_dropout", 0.6))[:, None]
        return Batch(torch.from_numpy(chosen), self.buckets[which], torch.from_numpy(told))

    def state(self, chosen: Tensor, atoms: int) -> Fields:
        """Clean states of molecules of at most ``atoms`` atoms, on the device of the set."""
        s, pairs = self.set, atoms * (atoms - 1) // 2
        mask = torch.arange(atoms, device=chosen.device) < s.sizes[chosen][:, None]
        tensors = {
            "positions": s.positions[chosen, :atoms],
            "kinds": s.kinds[chosen, :atoms].long(),
            "bonds": s.bonds[chosen, :pairs].long(),
        }
        return Fields(tensors, mask)

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says; in half of the steps of the network as it is when told its estimate."""
        device = next(network.parameters()).device
        if self.set.positions.device != device:
            self.set = Molecules(*(tensor.to(device) for tensor in self.set))
        if not self._compiled:
            self._compile(network)
        chosen = batch.chosen.to(device, non_blocking=True)
        told = batch.told.to(device, non_blocking=True)
        twice = bool(torch.rand((), generator=generator) < 0.5)

        def asked(state: Fields, t: Tensor, context: Tensor) -> Any:
            estimate = None
            if twice:
                with torch.no_grad():
                    estimate = estimate_of(network(state, t, context=context))
                torch.clear_autocast_cache()  # what was cast without a gradient would be taken again, without one
            return network(state, t, context=context, estimate=estimate)

        condition = {"context": self.context(self.set.properties[chosen, :TOLD], told)}
        return self._loss(asked, self.state(chosen, batch.atoms), condition, generator)

    def context(self, values: Tensor, told: Tensor) -> Tensor:
        """(B, 2 C): standardised properties, zero where they are not told, and which are told."""
        mean, deviation = self._standard[:, :TOLD].to(values.device, non_blocking=True)
        return torch.cat([(values - mean) / deviation * told, told.to(values)], -1)

    def _compile(self, network: nn.Module) -> None:
        """Compile one layer, which serves them all, instead of the network: a sixth of the wait."""
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 64
        body: Any = next(m for m in network.modules() if isinstance(m, MoleculeNetwork)).body
        for layer in body.layers:
            layer.compile(dynamic=False)
        self._compiled = True

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on validation molecules, and the stability of samples by their bonds."""
        device = next(network.parameters()).device
        assert isinstance(network, MoleculeNetwork)
        network.eval()
        cast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
        losses: dict[str, float] = {}
        with cast:
            for k in range(rounds := self.options.get("validation_rounds", 8)):
                batch = self.batch(256, np.random.default_rng(k), part=1)
                total, parts = self.loss(network, batch, torch.Generator().manual_seed(k))
                for name, part in {"loss": total, **parts}.items():
                    losses[f"validation_{name}"] = losses.get(f"validation_{name}", 0.0) + float(part) / rounds
            sizes = draw_sizes(self.facts["sizes"], self.options.get("samples", 1000), 0)
            made = generate(
                network, self._loss.process, sizes, self.facts["noise"], self.facts["scale"],
                steps=self.options.get("sample_steps", 50), device=str(device),
            )  # fmt: skip
        atoms = [stable(m.kinds[None], m.bonds[None], torch.ones(1, len(m.kinds), dtype=torch.bool))[0] for m in made]
        return {
            **losses,
            "atom_stable": float(torch.cat(atoms).float().mean()),
            "molecule_stable": sum(bool(a.all()) for a in atoms) / len(atoms),
        }

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as fp16, and what the card says of this model."""
        save_file({k: v.half().contiguous() for k, v in network.state_dict().items()}, folder / "molecule.safetensors")
        return {
            "architecture": {"molecule": {"kind": "molecule", **self._arguments}},
            "process": self.objective.process,
            "prediction": "x0",
            "conditioners": {"properties": list(PROPERTIES[:TOLD])},
            "data": self.facts,
            "attributions": [
                {
                    "source": "QM9, from qm9pack 1.0.3",
                    "licence": "MIT",
                    "line": "Ramakrishnan, Dral, Rupp and von Lilienfeld, Scientific Data 1, 140022 (2014)",
                }
            ],
        }


def load_network(file: Path, arguments: Mapping[str, Any]) -> MoleculeNetwork:
    """The network of a weight file that `MoleculeTask.publish` wrote, in float32, for sampling."""
    network = MoleculeNetwork(**{key: value for key, value in arguments.items() if key != "kind"})
    network.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    return network.eval().requires_grad_(False)


def draw_sizes(histogram: Mapping[str, int], count: int, seed: int) -> list[int]:
    """Numbers of atoms (count,) drawn as often as the training set has them."""
    weights = np.array(list(histogram.values()), float)
    chosen = np.random.default_rng(seed).choice([int(k) for k in histogram], count, p=weights / weights.sum())
    return [int(size) for size in chosen]


def _facts(whole: Molecules, path: Path) -> dict[str, Any]:
    """Of the training part: the unit of positions, marginal chances of classes, sizes, and spread of the properties."""
    train = whole.part == 0
    sizes, positions = whole.sizes[train], whole.positions[train]
    here = torch.arange(ATOMS) < sizes[:, None]
    second, first = torch.tril_indices(ATOMS, ATOMS, -1)
    kinds, bonds = whole.kinds[train][here].long(), whole.bonds[train][here[:, first] & here[:, second]].long()
    counts = {"kinds": kinds.bincount(minlength=len(KINDS)), "bonds": bonds.bincount(minlength=BONDS)}
    known = whole.properties[train].double()
    facts = {
        "molecules": {n: int((whole.part == k).sum()) for k, n in enumerate(("training", "validation", "testing"))},
        "scale": round(float(positions[here].double().square().mean().sqrt()), 6),
        "noise": {name: _chances(count) for name, count in counts.items()},
        "sizes": {str(n): int(c) for n, c in enumerate(sizes.bincount().tolist()) if c},
        "formulas": formulas(whole),
        "properties": {
            name: {
                "mean": round(float(known[:, k].mean()), 6),
                "deviation": round(float(known[:, k].std()), 6),
                "range": [round(float(known[:, k].min()), 6), round(float(known[:, k].max()), 6)],
            }
            for k, name in enumerate(PROPERTIES)
        },
    }
    path.write_text(json.dumps(facts, indent=1))
    return facts


def formulas(whole: Molecules) -> dict[str, int]:
    """How many molecules of the training part have each formula, the commonest first."""
    found: dict[str, int] = {}
    elements = [element for element, _ in KINDS]
    rows = torch.nonzero(whole.part == 0).flatten().tolist()
    for kinds, size in zip(whole.kinds[rows].tolist(), whole.sizes[rows].tolist(), strict=True):
        there = [elements[kind] for kind in kinds[:size]]
        counts = [(element, there.count(element)) for element in ("C", "H", "F", "N", "O")]
        name = "".join(f"{element}{count if count > 1 else ''}" for element, count in counts if count)
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _chances(counts: Tensor) -> list[float]:
    """Shares that add up to 1; a class that is rarer than 1 in 10,000 counts as that often."""
    share = (counts.double() / counts.sum()).clamp(min=1e-4)
    return [float(x) for x in share / share.sum()]
