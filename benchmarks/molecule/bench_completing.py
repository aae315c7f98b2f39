"""How well `qm9` completes molecules: scaffolds, and ends to be joined, cut out of QM9's test molecules.

    python benchmarks/molecule/bench_completing.py [--count 100] [--each 2] [--seed 7] [--out figures.json]

What is cut out, and from which molecules, depends on the seed alone; nothing of it was trained on. It goes through
`perrin.load` as a file, and nothing else is said, the number of atoms neither. QM9 is fetched (104 MB) and packed under
PERRIN_HOME the first time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

import perrin
from perrin.errors import InvalidInput
from perrin.settings import Settings
from perrin_molecule.checks import Made
from perrin_molecule.data import Molecules, fetch, pack, read
from perrin_molecule.metrics import Molecule, interval, smiles_of, to_rdkit
from perrin_molecule.parts import chosen


def fragments(whole: Molecules, count: int, seed: int) -> list[tuple[str, str, int]]:
    """Fragments as SDF, the SMILES that each is of, and its number of pieces; none that is a molecule already."""
    generator = np.random.default_rng(seed)
    tests, found = torch.nonzero(whole.part == 2).flatten().numpy(), []
    while len(found) < count:
        k = int(generator.choice(tests))
        size = int(whole.sizes[k])
        kinds, bonds = whole.kinds[k, :size], whole.bonds[k, : size * (size - 1) // 2]
        told = np.flatnonzero(chosen(kinds.numpy(), bonds.numpy(), size, generator))
        inner = [int(bonds[j * (j - 1) // 2 + i]) for n, j in enumerate(told) for i in told[:n]]
        cut = Molecule(whole.positions[k][told], kinds[told].long(), torch.tensor(inner, dtype=torch.long))
        source = smiles_of(to_rdkit(Molecule(whole.positions[k, :size], kinds.long(), bonds.long())))[0]
        made = to_rdkit(cut)
        found.append((Chem.MolToMolBlock(made, kekulize=False), source or "", len(Chem.GetMolFrags(made))))
    return found


def measure(count: int, each: int, seed: int) -> dict[str, Any]:
    """Shares by number of pieces, with 95% intervals."""
    folder = Settings().home / "data" / "molecule"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "qm9.safetensors").exists():
        pack(fetch(folder), folder / "qm9.safetensors")
    generate = perrin.load("molecule")
    counts: dict[str, dict[str, list[bool]]] = {}
    for number, (block, source, pieces) in enumerate(fragments(read(folder / "qm9.safetensors"), count, seed)):
        try:
            made: list[Made] = [
                item.value for item in generate(fragment=block.encode(), count=each, seed=1000 + number)
            ]
        except InvalidInput as error:
            print(f"refused: {error}")
            continue
        read_back = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        places = read_back.GetConformer().GetPositions()
        for group in ("all", f"pieces {pieces}"):
            into = counts.setdefault(group, {})
            for one in made:
                there = one.molecule.GetConformer().GetPositions()[: len(places)]
                into.setdefault("kept", []).append(bool((there == places).all()))
                into.setdefault("valid and in one piece", []).append(one.valid and one.connected)
                into.setdefault("sound", []).append(one.sound)
                plain = one.valid and Chem.MolToSmiles(Chem.RemoveHs(one.molecule), isomericSmiles=False)
                into.setdefault("the molecule it was cut from", []).append(plain == source)
    return {
        group: {name: [sum(hits), len(hits), *interval(sum(hits), len(hits))] for name, hits in found.items()}
        for group, found in counts.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    figures = measure(asked.count, asked.each, asked.seed)
    for group, found in figures.items():
        for name, (hits, total, low, high) in found.items():
            print(f"{group}: {name}: {100 * hits / total:.1f} ({100 * low:.1f} to {100 * high:.1f}) of {total}")
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
