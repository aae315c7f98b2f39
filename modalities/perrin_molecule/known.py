"""What of a molecule is given: its composition, and guidance that keeps to it.

It is known how many atoms of each kind there are, and not which. At every row the kinds go to the atoms that the
network most believes to be of them, so the posterior draws them so. (To fix beforehand which atom is what made no
stable molecule: places are taken before kinds are seen.)

References:
    Lugmayr et al., RePaint (2022), eq. 8, for replacing what is believed by what is known.
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
from perrin.diffusion.noise import uniforms
from perrin.diffusion.state import Fields
from perrin.errors import InvalidInput
from perrin_molecule.data import KINDS
from perrin_molecule.face import atoms_of

__all__ = ["Kept", "Towards", "composition", "of_weight"]

MASSES = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999, "F": 18.998}
"""In g/mol."""

NEAR = 0.5
"""In g/mol; formulas that are further from a weight than the nearest one by less than this are as good as it."""

NEUTRAL = {element: number for number, (element, charge) in reversed([*enumerate(KINDS)]) if charge == 0}


def composition(formula: str, given: Tensor | None = None) -> Tensor:
    """(n,) the kinds of the atoms of a formula: those ``given``, then neutral ones, heavy ones first.

    Raises:
        InvalidInput: the formula has not all that is given.
    """
    counts = atoms_of(formula)
    first = [] if given is None else given.tolist()
    for kind in first:
        element = KINDS[kind][0]
        counts[element] = counts.get(element, 0) - 1
        if counts[element] < 0:
            raise InvalidInput("formula", formula, f"at least the atoms of the fragment: it has more {element}")
    order = sorted(counts, key=lambda element: (element == "H", element != "C", element))
    return torch.tensor([*first, *(NEUTRAL[element] for element in order for _ in range(counts[element]))])


@dataclass(frozen=True)
class Kept(Guidance):
    """Keeps to a composition; ``guidance`` decides the rest.

    Attributes:
        guidance: of the whole molecule.
        kinds: (n,) of the atoms of each sample, in any order.
    """

    guidance: Guidance
    kinds: Sequence[Tensor]

    def branches(self, condition: Condition, t: float) -> Sequence[Branch]:
        return self.guidance.branches(condition, t)

    def combine(self, outputs: Sequence[Any], x: Any, t: float, memory: Memory) -> Combined:
        estimate, _, memory = self.guidance.combine(outputs, x, t, memory)
        kept = Fields({**estimate, "kinds": _shared(estimate["kinds"], self.kinds)}, estimate.mask)
        return Combined(kept, kept, memory)


def _shared(belief: Tensor, kinds: Sequence[Tensor]) -> Tensor:
    """The kinds (n,) of each sample given to its first n atoms in the likeliest way by ``belief`` (B, N, K)."""
    changed = belief.clone()
    for sample, own in zip(changed, kinds, strict=True):
        atoms = sample[: len(own)]
        cost = -atoms.clamp(min=1e-30).log()[:, own.to(sample.device)]
        order = torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1])
        atoms.copy_(F.one_hot(own[order], belief.shape[-1]))
    return changed


def of_weight(formulas: Mapping[str, int], weight: float, seeds: Sequence[int]) -> list[str]:
    """A formula for each seed, as near to ``weight`` in g/mol as any (see `NEAR`), as often as the data have it."""
    masses = {name: sum(MASSES[element] * count for element, count in atoms_of(name).items()) for name in formulas}
    least = min(abs(mass - weight) for mass in masses.values())
    near = [name for name, mass in masses.items() if abs(mass - weight) <= least + NEAR]
    chances = np.cumsum([formulas[name] for name in near], dtype=np.float64)
    drawn = uniforms(seeds, 0, (1,), "formula")[:, 0] * chances[-1]
    return [near[int(k)] for k in np.searchsorted(chances, drawn)]


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
