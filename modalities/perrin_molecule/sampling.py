"""Molecules out of noise: the positions by DDIM or with fresh noise, kinds and bonds by their posterior, in step.

References:
    Song et al., DDIM (2021), eq. 12 and 16, in the scales of any process; Austin et al. (2021), eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.diffusion.state import Fields, zero_centre
from perrin_molecule.metrics import Molecule
from perrin_molecule.network import estimate_of

__all__ = ["generate", "molecules_of", "sample"]


def _drawn(chances: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.rand(chances.shape, generator=generator, device=chances.device).clamp(1e-20, 1 - 1e-7)
    return (chances.clamp(min=1e-30).log() - torch.log(-torch.log(noise))).argmax(-1)


def _posterior(x: Tensor, belief: Tensor, noise: Tensor, keep_t: float, keep_s: float) -> Tensor:
    here = F.one_hot(x, len(noise)).to(belief)
    ratio, at = keep_t / keep_s, noise[x][..., None]
    weight = belief / (keep_t * here + (1 - keep_t) * noise).clamp(min=1e-30)
    spread = keep_s * weight + (1 - keep_s) * noise * weight.sum(-1, keepdim=True)
    joint = (ratio * here + (1 - ratio) * at) * spread
    return joint / joint.sum(-1, keepdim=True)


@torch.inference_mode()
def sample(
    network: nn.Module,
    sizes: Tensor,
    noise: Mapping[str, Tensor],
    generator: torch.Generator,
    steps: int = 100,
    churn: float = 1.0,
    curve: float = 1.0,
    temperature: float = 1.0,
    context: Tensor | None = None,
) -> Fields:
    """Clean states of molecules of ``sizes`` atoms (B,), on the generator's device.

    Args:
        network: a `MoleculeNetwork`.
        sizes: (B,) numbers of atoms.
        noise: chances of ``kinds`` (K,) and ``bonds`` (4,) at full noise.
        generator: of all draws.
        steps: evaluations.
        churn: 0: DDIM; 1: as much fresh noise for the positions as the forward process has.
        curve: times are (k / steps) ** curve; above 1 the last steps are shorter.
        temperature: of the beliefs about classes.
        context: (B, C) of the network.
    """
    device = generator.device
    count = int(sizes.max())
    mask = torch.arange(count, device=device) < sizes.to(device)[:, None]
    noise = {name: chances.to(device) for name, chances in noise.items()}

    def normal() -> Tensor:
        return zero_centre(torch.randn(len(sizes), count, 3, generator=generator, device=device), mask)

    x, estimate = normal(), None
    shapes = {"kinds": (len(sizes), count), "bonds": (len(sizes), count * (count - 1) // 2)}
    classes = {n: _drawn(noise[n].expand(*shape, -1), generator) for n, shape in shapes.items()}
    grid = [(1 - k / steps) ** curve for k in range(steps + 1)]
    for t, s in pairwise(grid):
        state = Fields({"positions": x, **classes}, mask)
        answer = network(state, x.new_full((len(x),), t), context=context, estimate=estimate)
        estimate = estimate_of(answer)
        clean = estimate["positions"] = zero_centre(estimate["positions"], mask)
        fresh = churn * s * max(0.0, 1 - ((1 - t) * s / ((1 - s) * t)) ** 2) ** 0.5
        x = (1 - s) * clean + (s * s - fresh * fresh) ** 0.5 * (x - (1 - t) * clean) / t + fresh * normal()
        for name in classes:
            belief = torch.softmax(answer[name].float() / temperature, -1)
            if s == 0:
                classes[name] = belief.argmax(-1)
            else:
                classes[name] = _drawn(_posterior(classes[name], belief, noise[name], 1 - t, 1 - s), generator)
    return Fields({"positions": x, **classes}, mask)


def molecules_of(state: Fields, scale: float) -> list[Molecule]:
    """The molecules of clean states, on the CPU; ``scale`` is the unit of positions in angstrom."""
    assert state.mask is not None
    out = []
    for k, size in enumerate(state.mask.sum(1).tolist()):
        positions, kinds, bonds = (state[name][k].cpu() for name in ("positions", "kinds", "bonds"))
        out.append(Molecule(positions[:size] * scale, kinds[:size], bonds[: size * (size - 1) // 2]))
    return out


def generate(network: nn.Module, sizes: Tensor, batch: int, scale: float, **options: Any) -> list[Molecule]:
    """Molecules of ``sizes``, made in batches of like size, in the order of ``sizes``; see `sample` for the options."""
    order = sizes.argsort(stable=True)
    made: dict[int, Molecule] = {}
    for chosen in order.split(batch):
        found = molecules_of(sample(network, sizes[chosen], **options), scale)
        made |= dict(zip(chosen.tolist(), found, strict=True))
    return [made[k] for k in range(len(sizes))]
