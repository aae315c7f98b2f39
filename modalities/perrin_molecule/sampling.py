"""Molecules out of noise by the core: the network as a run calls it, the run of a set of molecules, and what comes out.

A state is padded to the most atoms that the model knows, so that a molecule's noise never depends on its neighbours'
size; the network itself is called on molecules of like size, cropped to the longest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.diffusion.categorical import Categorical
from perrin.diffusion.denoiser import Denoiser
from perrin.diffusion.grid import Grid
from perrin.diffusion.guidance import Guidance
from perrin.diffusion.plan import Plan
from perrin.diffusion.process import Process
from perrin.diffusion.sampling import Run
from perrin.diffusion.solvers import solver
from perrin.diffusion.state import Fields, zero_centre
from perrin_molecule.data import ATOMS, BONDS, KINDS
from perrin_molecule.metrics import Molecule
from perrin_molecule.network import MoleculeNetwork, restored

__all__ = ["Tempered", "denoiser_of", "generate", "molecules_of", "started"]

FIXED = "fixed."
"""Conditions so called hold what is given of a molecule: ``atoms`` (B, N) says which, the others are a clean state."""


class Tempered(nn.Module):
    """A `MoleculeNetwork` as the core calls it: beliefs sharpened by a temperature, molecules of like size together.

    Told the last estimate, whose beliefs are sharp, it gives the network what it had said. What is given of a molecule
    it lays over the state.

    Args:
        network: the network.
        at_once: molecules in a call.
        fast: products are computed in bfloat16.
    """

    def __init__(self, network: MoleculeNetwork, at_once: int, fast: bool = False) -> None:
        super().__init__()
        self.network, self.at_once, self.fast = network, at_once, fast

    def forward(self, state: Fields, t: Tensor, temperature: Tensor, **told: Tensor) -> dict[str, Tensor]:
        """Clean positions, and logits over the temperature (1 or B,), of a state padded to any length.

        ``told`` are ``context`` and ``more``, (1 or B, C), the last estimate ``estimate.FIELD``, and ``fixed.atoms``
        and ``fixed.FIELD``.
        """
        told = {name: x.expand(len(t), *x.shape[1:]) for name, x in told.items()}
        given = {name.removeprefix(FIXED): x for name, x in told.items() if name.startswith(FIXED)}
        if given:
            state = restored(state, given, given["atoms"])
        mask = state.mask
        assert mask is not None
        sizes = mask.sum(1)
        whole = {"positions": torch.zeros_like(state["positions"])}
        whole |= {n: t.new_zeros(*state[n].shape, k) for n, k in (("kinds", len(KINDS)), ("bonds", BONDS))}
        temperature = temperature.expand(len(t))
        for chosen in sizes.argsort(stable=True).split(self.at_once):
            longest = int(sizes[chosen].max())
            lengths = {"positions": longest, "kinds": longest, "bonds": longest * (longest - 1) // 2}
            part = Fields({n: state[n][chosen, :m] for n, m in lengths.items()}, mask[chosen, :longest])
            heat = temperature[chosen][:, None, None]
            named: dict[str, Any] = {name: told[name][chosen] for name in ("context", "more") if name in told}
            known = {n: told[f"estimate.{n}"][chosen, :m] for n, m in lengths.items() if f"estimate.{n}" in told}
            named["estimate"] = {n: x if n == "positions" else _spread(x, heat) for n, x in known.items()} or None
            if given:
                named["fixed"] = given["atoms"][chosen, :longest]
            with torch.autocast(t.device.type, torch.bfloat16, enabled=self.fast):
                answer = self.network(part, t[chosen], **named)
            for name, length in lengths.items():
                said = answer[name].to(whole[name])
                whole[name][chosen, :length] = said if name == "positions" else said / heat
        return whole


def _spread(x: Tensor, heat: Tensor) -> Tensor:
    """Sharpened chances (B, N, K) as they were."""
    soft = x.clamp(min=1e-30) ** heat
    return soft / soft.sum(-1, keepdim=True)


def denoiser_of(network: MoleculeNetwork, process: Process, at_once: int, fast: bool) -> Denoiser:
    """The network's clean estimate: positions, and chances of kinds and bonds."""
    predictions = {"positions": "x0", "kinds": "logits", "bonds": "logits"}
    return Denoiser(Tempered(network, at_once, fast), process, predictions, recall=True)


def started(
    guidance: Guidance | Denoiser,
    positions: Plan,
    grid: Grid,
    noise: Mapping[str, Sequence[float]],
    sizes: Sequence[int],
    seeds: Sequence[int],
    condition: Mapping[str, Tensor],
    most: int,
    device: str = "cpu",
) -> Run:
    """A run at its first row.

    Args:
        guidance: of molecules.
        positions: the plan of the positions.
        grid: what it was made of; kinds and bonds follow it by their posterior.
        noise: chances of ``kinds`` and ``bonds`` at full noise.
        sizes: numbers of atoms, one of each molecule.
        seeds: one of each molecule.
        condition: of the network. Where it holds given atoms (``fixed.atoms``), the origin is their middle.
        most: atoms that states are padded to.
        device: of the state.
    """
    plans: dict[str, Any] = {"positions": positions}
    for name, chances in noise.items():
        plans[name] = Categorical(len(chances), tuple(chances)).plan(grid.alpha)
    mask = torch.arange(most) < torch.tensor(sizes)[:, None]
    loose = any(name.startswith(FIXED) for name in condition)
    return d.start(
        guidance,
        plans,
        shape={"positions": (most, 3), "kinds": (most,), "bonds": (most * (most - 1) // 2,)},
        seeds=seeds,
        condition=condition,
        mask=mask.to(device),
        spaces={"positions": masked if loose else zero_centre},
        device=device,
    )


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """The space of point sets (B, N, 3) that lie anywhere; masked points are zero."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)


def molecules_of(state: Fields, scale: float) -> list[Molecule]:
    """The molecules of clean states, on the CPU; ``scale`` is the unit of positions in angstrom."""
    assert state.mask is not None
    out = []
    for k, size in enumerate(state.mask.sum(1).tolist()):
        positions, kinds, bonds = (state[name][k].cpu() for name in ("positions", "kinds", "bonds"))
        out.append(Molecule(positions[:size] * scale, kinds[:size], bonds[: size * (size - 1) // 2]))
    return out


def generate(
    network: MoleculeNetwork,
    process: Process,
    sizes: Sequence[int],
    noise: Mapping[str, Sequence[float]],
    scale: float,
    *,
    steps: int = 50,
    temperature: float = 0.2,
    seed: int = 0,
    at_once: int = 1000,
    fast: bool = False,
    device: str = "cpu",
) -> list[Molecule]:
    """Molecules of ``sizes`` atoms, of which nothing is asked, by fresh noise at every row; see `started`."""
    grid = d.grid.shifted(process, steps, shift=1.0)
    network.eval()
    told: dict[str, Tensor] = {"temperature": torch.tensor([temperature], device=device)}
    if network.context:
        told["context"] = torch.zeros(1, network.context, device=device)
    run = started(
        denoiser_of(network, process, at_once, fast),
        solver("ddpm")(grid),
        grid,
        noise,
        sizes,
        range(seed, seed + len(sizes)),
        told,
        max(ATOMS, *sizes),
        device,
    )
    return molecules_of(run.run(), scale)
