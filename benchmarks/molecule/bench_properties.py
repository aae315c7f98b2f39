"""How near molecules of `qm9` come to the properties that are asked for, beside a naive and a lower bound.

    python benchmarks/molecule/bench_properties.py REGRESSOR.safetensors [--count 200] [--seed 21] [--keep FOLDER]

EDM's protocol (Hoogeboom et al., 2022, section 5.2), with these differences: EDM's generator had seen one half of the
training set and its regressor the other; here the regressor (`regressor.py`, which trains it) had seen one half and
the shipped generator all of it. EDM drew 10,000 molecules for each property. Pairs of a value and a number of atoms
are those of molecules of the half that the regressor has not seen.

Gap, dipole and polarisability are judged by the regressor, weight and drug-likeness are counted by RDKit. ``lower``:
the regressor's own error on QM9's test molecules. ``naive``: the error if values are dealt to other molecules.
``atoms``: the error of the mean value for the number of atoms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from regressor import NAMES, Regressor, answer, half, load

import perrin
from perrin.settings import Settings
from perrin_molecule.checks import Made
from perrin_molecule.data import PROPERTIES, Molecules, read
from perrin_molecule.writing import write

ASKED: tuple[tuple[str, ...], ...] = (*((name,) for name in PROPERTIES), ("gap", "polarisability"), ("weight", "qed"))
"""What is asked for together."""


def said(regressor: Regressor, made: Any) -> dict[str, float]:
    """The five properties of a molecule of an SDF; QED only of a valid one."""
    elements = torch.tensor([["HCNOF".index(a.GetSymbol()) for a in made.GetAtoms()]])
    places = torch.tensor(made.GetConformer().GetPositions(), dtype=torch.float32)[None]
    found = regressor(places - places.mean(1), elements, torch.ones_like(elements, dtype=torch.bool))[0].tolist()
    values = dict(zip(NAMES, found, strict=True)) | {"weight": float(made.GetProp("weight"))}
    return values | ({"qed": float(made.GetProp("qed"))} if made.HasProp("qed") else {})


def sound(made: Any) -> bool:
    """Stable, in one piece, and nothing that PoseBusters minds, by its report."""
    passed = made.HasProp("posebusters") and made.GetProp("posebusters") == "passed"
    return bool(passed and made.GetProp("stable") == "yes" and made.GetProp("connected") == "yes")


def mean_error(errors: list[float]) -> list[float]:
    """The mean absolute error, and its 95% interval by the deviation of the errors."""
    sizes = np.abs(errors)
    half_width = 1.96 * sizes.std(ddof=1) / len(sizes) ** 0.5
    return [float(sizes.mean()), float(sizes.mean() - half_width), float(sizes.mean() + half_width)]


def requested(whole: Molecules, count: int, seed: int) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Requests by what they ask for."""
    unseen, generator = half(whole, 1), np.random.default_rng(seed)
    found = {}
    for names in ASKED:
        rows = unseen[torch.from_numpy(generator.choice(len(unseen), count, replace=False))].tolist()
        wanted = [{n: float(whole.properties[k, PROPERTIES.index(n)]) for n in names} for k in rows]
        sizes = [int(whole.sizes[k]) for k in rows]
        found[names] = [{"atoms": n, "seed": seed + i, **w} for i, (n, w) in enumerate(zip(sizes, wanted, strict=True))]
    return found


def made(requests: list[dict[str, Any]], guidance: float, path: Path) -> list[Any]:
    """The molecules of the requests, from ``path`` if they are there."""
    if not path.exists():
        found: list[Made] = [one[0].value for one in perrin.load("molecule")(requests, guidance=guidance)]
        path.write_bytes(write(found, "chemical/x-mdl-sdfile", {"guidance": guidance}))
    return [*Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)]


def measure(
    regressor: Regressor, asked: dict[tuple[str, ...], list[dict[str, Any]]], guidance: float, folder: Path
) -> dict[str, Any]:
    """Errors by what was asked for."""
    figures: dict[str, Any] = {}
    for names, requests in asked.items():
        molecules = made(requests, guidance, folder / f"{'-'.join(names)}.sdf")
        values = [said(regressor, one) for one in molecules]
        entry: dict[str, Any] = {"sound": sum(map(sound, molecules)) / len(molecules)}
        for name in names:
            pairs = [(v[name], float(r[name])) for v, r in zip(values, requests, strict=True) if name in v]
            entry[name] = mean_error([v - w for v, w in pairs])
        figures[" and ".join(names)] = entry
        print(names, entry, flush=True)
    return figures


def bounds(regressor: Regressor, whole: Molecules, seed: int) -> dict[str, dict[str, float]]:
    """Lower, naive and atoms' errors of each property."""
    tests, generator = torch.nonzero(whole.part == 2).flatten()[:4000], np.random.default_rng(seed)
    found: dict[str, dict[str, float]] = {}
    predicted = torch.cat([answer(regressor, whole, rows) for rows in tests.split(250)])
    known = whole.properties[half(whole, 1)]
    sizes = whole.sizes[half(whole, 1)]
    for k, name in enumerate(PROPERTIES):
        values = known[:, k]
        means = torch.zeros(30).index_add_(0, sizes, values) / sizes.bincount(minlength=30).clamp(min=1)
        found[name] = {
            "lower": float((predicted[:, k] - whole.properties[tests, k]).abs().mean()) if name in NAMES else 0.0,
            "naive": float((values - values[torch.from_numpy(generator.permutation(len(values)))]).abs().mean()),
            "atoms": float((values - means[sizes]).abs().mean()),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("regressor", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, default=Path("made"), help="Folder of the molecules; made once.")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    whole, regressor = read(Settings().home / "data" / "molecule" / "qm9.safetensors"), load(asked.regressor)
    figures = {"bounds": bounds(regressor, whole, asked.seed)}
    print(figures["bounds"], flush=True)
    figures |= measure(regressor, requested(whole, asked.count, asked.seed), asked.guidance, asked.keep)
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
