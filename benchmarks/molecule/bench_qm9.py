"""Molecules of `qm9` beside published ones: stability, validity, novelty, geometry, with 95% intervals.

    python benchmarks/molecule/bench_qm9.py [--count 2000] [--seed 11] [--energy] [--out figures.json] [--sdf made.sdf]

Novelty is asked of the training part of QM9, which is fetched (104 MB) and packed under PERRIN_HOME the first time.
Shares of the papers are theirs, of 10,000 samples: EDM and QM9 itself (Hoogeboom et al., 2022, table 1), GeoLDM (Xu et
al., 2023, table 1), EquiFM (Song et al., 2023, table 1), GCDM (Morehead and Cheng, 2024, table 1). Theirs are read from
lengths (EDM's table), so the rows to lay beside them are those by length.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

import perrin
from perrin.settings import Settings
from perrin_molecule.checks import Made, checker
from perrin_molecule.data import KINDS, Molecules, fetch, pack, read
from perrin_molecule.metrics import Molecule, interval, report, smiles_of, to_rdkit
from perrin_molecule.writing import write

PUBLISHED = {
    "QM9": (99.0, 95.2, 97.7, 97.7),
    "EDM": (98.7, 82.0, 91.9, 90.7),
    "GeoLDM": (98.9, 89.4, 93.8, 92.7),
    "EquiFM": (98.9, 88.3, 94.7, 93.5),
    "GCDM": (98.7, 85.7, 94.8, 93.3),
}
"""Percent of atoms stable, molecules stable, valid, valid and unique."""

NAMES = ("atom_stable", "molecule_stable", "valid", "valid_unique")


def packed() -> Path:
    """QM9 as one file, fetched (104 MB) if it is not there."""
    folder = Settings().home / "data" / "molecule"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "qm9.safetensors").exists():
        pack(fetch(folder), folder / "qm9.safetensors")
    return folder / "qm9.safetensors"


def taken(whole: Molecules, k: int) -> Molecule:
    """Molecule ``k`` of the set."""
    n = int(whole.sizes[k])
    return Molecule(whole.positions[k, :n], whole.kinds[k, :n].long(), whole.bonds[k, : n * (n - 1) // 2].long())


def trained() -> list[str]:
    """SMILES of QM9's training part, as `smiles_of` writes them; kept beside the pack."""
    path = packed()
    known = path.with_name("training.smi")
    if known.is_file():
        return known.read_text().split()
    whole = read(path)
    rows = torch.nonzero(whole.part == 0).flatten().tolist()
    found = [smiles_of(to_rdkit(taken(whole, k)))[0] for k in rows]
    known.write_text("\n".join(smiles for smiles in found if smiles))
    return known.read_text().split()


def molecule(made: Made) -> Molecule:
    """The atoms, bonds and coordinates of a result."""
    plain = Chem.Mol(made.molecule)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    kinds = [KINDS.index((a.GetSymbol(), a.GetFormalCharge())) for a in plain.GetAtoms()]
    bonds = torch.zeros(len(kinds) * (len(kinds) - 1) // 2, dtype=torch.long)
    for bond in plain.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        bonds[j * (j - 1) // 2 + i] = int(bond.GetBondTypeAsDouble())
    places = torch.tensor(plain.GetConformer().GetPositions(), dtype=torch.float32)
    return Molecule(places, torch.tensor(kinds), bonds)


def nearest(smiles: list[str], known: list[str]) -> list[float]:
    """Tanimoto similarity of each to its nearest training molecule, by Morgan fingerprints of radius 2."""
    maker = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [maker.GetFingerprint(Chem.MolFromSmiles(one)) for one in known]
    return [
        max(DataStructs.BulkTanimotoSimilarity(maker.GetFingerprint(Chem.MolFromSmiles(one)), prints)) for one in smiles
    ]


def measure(count: int, seed: int, energy: bool, sdf: Path | None) -> dict[str, Any]:
    """Every figure."""
    generate = perrin.load("molecule")
    generate(count=1, steps=10, seed=0)
    began, cpu = time.perf_counter(), time.process_time()
    made: list[Made] = [
        item.value for at in range(0, count, 200) for item in generate(count=min(200, count - at), seed=seed + at)
    ]
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    if sdf is not None:
        sdf.write_bytes(write(made, "chemical/x-mdl-sdfile", {"seed": seed}))
    known = trained()
    figures = report([molecule(one) for one in made], known)
    figures |= {"count": count, "seed": seed, "seconds": seconds, "cpu_seconds": spent}
    for name, hits in {
        "posebusters": [one.failed == () for one in made],
        "sound": [one.sound for one in made],
    }.items():
        figures[name] = sum(hits) / count
        figures["intervals"][name] = interval(sum(hits), count)
    if energy:
        valid = [one.molecule for one in made if one.valid]
        table = checker(energy=True).bust(valid, None, None, full_report=False)
        hits = int(table.fillna(False).astype(bool).all(axis=1).sum())
        figures["posebusters_with_energy"] = hits / count
        figures["intervals"]["posebusters_with_energy"] = interval(hits, count)
    strains = [one.strain for one in made if one.strain is not None]
    fresh = sorted({one for one in (smiles_of(to_rdkit(molecule(m)))[0] for m in made if m.valid) if one})
    near = nearest(fresh, known)
    figures["strain"] = {"median": float(np.median(strains)), "p90": float(np.quantile(strains, 0.9))}
    figures["nearest"] = {"median": float(np.median(near)), "same_fingerprint": float(np.mean(np.array(near) == 1))}
    return figures


def real(count: int, seed: int) -> None:
    """QM9's own molecules by the same counting: atoms and molecules stable, valid, valid and unique."""
    whole = read(packed())
    rows = np.random.default_rng(seed).choice(len(whole.sizes), count, replace=False)
    figures = report([taken(whole, int(k)) for k in rows])
    for way in ("", "_by_length"):
        cells = [f"{name}{way} {100 * figures[name + way]:.2f}" for name in NAMES]
        print(f"QM9, {count} molecules: " + ", ".join(cells))


def show(figures: dict[str, Any]) -> None:
    """The table in Markdown."""

    def cell(name: str) -> str:
        low, high = figures["intervals"][name]
        return f"{100 * figures[name]:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    print("| | atoms stable | molecules stable | valid | valid and unique |")
    print("|---|---|---|---|---|")
    print("| qm9, its own bonds | " + " | ".join(cell(name) for name in NAMES) + " |")
    print("| qm9, bonds by length | " + " | ".join(cell(f"{name}_by_length") for name in NAMES) + " |")
    for name, shares in PUBLISHED.items():
        print(f"| {name}{', the data themselves' if name == 'QM9' else ''} | " + " | ".join(map(str, shares)) + " |")
    print()
    for name in ("valid_unique_connected", "novel", "posebusters", "posebusters_with_energy", "sound"):
        if name in figures:
            print(f"- {name.replace('_', ' ')}: {cell(name)}")
    print(f"- strain, kcal/mol: {figures['strain']}; nearest in training, Tanimoto: {figures['nearest']}")
    print(
        f"- {figures['count']} molecules in {figures['seconds']:.0f} s, {figures['cpu_seconds']:.0f} s of a core, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--energy", action="store_true")
    parser.add_argument("--out", type=Path, help="Where the figures go, as JSON.")
    parser.add_argument("--sdf", type=Path, help="Where the molecules go.")
    parser.add_argument("--real", type=int, metavar="N", help="Count N molecules of QM9 itself instead.")
    asked = parser.parse_args()
    if asked.real is not None:
        real(asked.real, asked.seed)
        return
    figures = measure(asked.count, asked.seed, asked.energy, asked.sdf)
    show(figures)
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
