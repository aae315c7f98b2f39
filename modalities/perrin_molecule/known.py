"""What of a molecule is given: its composition, or a fragment with coordinates; and guidance that keeps it.

At every row what the network believes is replaced by what is known, so the posterior draws from it. Of a composition it
is known how many atoms of each kind there are, and not which: they go to the atoms that the network most believes to be
of the kind. (To fix beforehand which atom is what made no stable molecule: places are taken before kinds are seen.)

A fragment's atoms are the first ones. Its place and orientation are its own; it is moved as a whole to where the
network sees its middle, since the centre of the whole molecule, which is the origin, lies with the atoms to come.

References:
    Lugmayr et al., RePaint (2022), eq. 8; Hoogeboom et al. (2022), section 3, for the zero centre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from perrin.diffusion.denoiser import Condition, Denoiser
from perrin.diffusion.guidance import Branch, Combined, Guidance, Memory
from perrin.diffusion.state import Fields
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin_molecule.data import BONDS, KINDS
from perrin_molecule.face import atoms_of

__all__ = ["Given", "Kept", "Towards", "composition", "fragment"]

NEUTRAL = {element: number for number, (element, charge) in reversed([*enumerate(KINDS)]) if charge == 0}


@dataclass(frozen=True)
class Given:
    """The first atoms of a molecule, or, where only kinds are given, all of them in any order.

    Attributes:
        kinds: (n,) classes.
        positions: (n, 3) in the model's unit, zero mean; None where only the kinds are given.
        bonds: (n (n - 1) / 2,) classes of the pairs; None likewise.
    """

    kinds: Tensor
    positions: Tensor | None = None
    bonds: Tensor | None = None


def composition(formula: str) -> Given:
    """The atoms of a formula, neutral ones, heavy ones first."""
    counts = atoms_of(formula)
    order = sorted(counts, key=lambda element: (element == "H", element != "C", element))
    return Given(torch.tensor([NEUTRAL[element] for element in order for _ in range(counts[element])]))


def fragment(file: InputFile, scale: float) -> Given:
    """The atoms, bonds and coordinates in an SDF or MOL file.

    Args:
        file: the file.
        scale: the model's unit in angstrom.

    Raises:
        InvalidInput: it is no such file, is in several pieces without any bond, has no coordinates, or elements or
            charges that the model does not know.
    """
    from rdkit import Chem, rdBase

    quiet = rdBase.BlockLogs()  # while it lives
    text = file.data.decode(errors="replace").replace("\r\n", "\n")
    molecule = Chem.MolFromMolBlock(text.partition("$$$$")[0], sanitize=False, removeHs=False)
    del quiet
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise InvalidInput("fragment", f"{len(file.data)} bytes", "an SDF or MOL file with at least one atom")
    place = np.array(molecule.GetConformer().GetPositions(), np.float32)
    if not np.isfinite(place).all() or (len(place) > 3 and np.abs(place[:, 2]).max() < 1e-3):
        raise InvalidInput("fragment", "a flat drawing", "coordinates in three dimensions: make a conformer first")
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1) + 9 * np.eye(len(place))
    if len(place) > 1 and (apart.min() < 0.5 or apart.min(1).max() > 2.5):
        raise InvalidInput("fragment", "atoms on top of each other, or far from all others", "coordinates in angstrom")
    try:
        Chem.Kekulize(molecule, clearAromaticFlags=True)
    except (ValueError, RuntimeError):
        raise InvalidInput("fragment", "aromatic bonds", "single, double and triple bonds") from None
    kinds = [(atom.GetSymbol(), atom.GetFormalCharge()) for atom in molecule.GetAtoms()]
    for symbol, charge in kinds:
        if (symbol, charge) not in KINDS:
            known = ", ".join(f"{s}{'' if not c else '+' if c > 0 else '-'}" for s, c in KINDS)
            raise InvalidInput("fragment", f"{symbol} of charge {charge}", f"atoms of {known}")
    bonds = torch.zeros(len(kinds) * (len(kinds) - 1) // 2, dtype=torch.long)
    for bond in molecule.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        bonds[j * (j - 1) // 2 + i] = int(bond.GetBondTypeAsDouble())
    positions = torch.from_numpy(place - place.mean(0)) / scale
    return Given(torch.tensor([KINDS.index(kind) for kind in kinds]), positions, bonds)


@dataclass(frozen=True)
class Kept(Guidance):
    """Keeps what is given; ``guidance`` decides the rest.

    Attributes:
        guidance: of the whole molecule.
        given: the same of every sample.
    """

    guidance: Guidance
    given: Given

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return self.guidance.branches(condition, t)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        estimate, _, memory = self.guidance.combine(outputs, x, t, memory)
        kept = self._with(estimate)
        return Combined(kept, kept, memory)

    def _with(self, estimate: Fields) -> Fields:
        given, found = self.given, dict(estimate)
        n = len(given.kinds)
        if given.positions is None:
            found["kinds"] = _shared(found["kinds"], given.kinds)
        else:
            found["kinds"] = _first(found["kinds"], F.one_hot(given.kinds, len(KINDS)))
        if given.bonds is not None:
            found["bonds"] = _first(found["bonds"], F.one_hot(given.bonds, BONDS))
        if given.positions is not None:
            place = found["positions"].clone()
            middle = place[:, :n].mean(1, keepdim=True)
            place[:, :n] = given.positions.to(place) + middle
            found["positions"] = place
        return Fields(found, estimate.mask)


def _first(belief: Tensor, known: Tensor) -> Tensor:
    """``belief`` (B, N, K) with ``known`` (n, K) in the place of its first entries."""
    changed = belief.clone()
    changed[:, : len(known)] = known.to(belief)
    return changed


def _shared(belief: Tensor, kinds: Tensor) -> Tensor:
    """The kinds (n,) given to the first n atoms of each sample in the likeliest way by ``belief`` (B, N, K)."""
    changed = belief.clone()
    for sample in changed[:, : len(kinds)]:
        cost = -sample.clamp(min=1e-30).log()[:, kinds.to(sample.device)]
        order = torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1])
        sample.copy_(F.one_hot(kinds[order], belief.shape[-1]))
    return changed


@dataclass(frozen=True)
class Towards(Guidance):
    """Classifier-free guidance of positions and, in the logarithm of chances, of classes.

    .. math:: D = D_0 + w (D_c - D_0), \\qquad p \\propto p_0^{1 - w}\\, p_c^{w}

    Attributes:
        denoiser: of the molecule.
        scale: w; 1 is no guidance.
        null: the condition under which nothing is asked for.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance (2022), eq. 6; Nisonoff et al., Unlocking Guidance for
        Discrete State-Space Diffusion (2024), eq. 9, for classes.
    """

    denoiser: Denoiser
    scale: float
    null: Mapping[str, Tensor]

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        told = Branch(self.denoiser, condition)
        return (told,) if self.scale == 1 else (told, Branch(self.denoiser, self.null))

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        if len(outputs) == 1:
            return Combined(outputs[0], outputs[0], memory)
        told, bare = outputs
        found = {}
        for name in told:
            if name == "positions":
                found[name] = bare[name] + (told[name] - bare[name]) * self.scale
                continue
            a, b = told[name].clamp(min=1e-12).log(), bare[name].clamp(min=1e-12).log()
            found[name] = torch.softmax(b + (a - b) * self.scale, -1)
        guided = Fields(found, told.mask)
        return Combined(guided, guided, memory)
