"""A small network that says a molecule's gap, dipole and polarisability from its elements and places, for benchmarks.

Messages go between all atoms, weighed by radial functions of their distance, so that nothing turns or moves it. The gap
is a mean over atoms, the polarisability a sum, and the dipole the length of the sum of charges times places, charges
adding up to nothing. A line through the counts of elements is taken off first.

References:
    Schuett et al., SchNet (2017), eq. 3; Unke and Meuwly, PhysNet (2019), section II.C, for the dipole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin_molecule.data import KINDS, Molecules, read

__all__ = ["NAMES", "Regressor", "elements_of", "half"]

NAMES = ("gap", "dipole", "polarisability")
RADIAL = 32
ELEMENT = torch.tensor(["HCNOF".index(element) for element, _ in KINDS])


def elements_of(kinds: Tensor) -> Tensor:
    """0 to 4 for H, C, N, O and F, of classes of `KINDS`."""
    return ELEMENT[kinds.long()]


class Regressor(nn.Module):
    """``regressor(positions, elements, mask)``: (B, 3) `NAMES`, in eV, debye and bohr^3."""

    def __init__(self, width: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.filters = nn.ModuleList(
            [nn.Sequential(nn.Linear(RADIAL, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)]
        )
        self.before = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(depth)])
        self.after = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)]
        )
        self.out = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))
        self.line = nn.Parameter(torch.zeros(6, 3), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, positions: Tensor, elements: Tensor, mask: Tensor) -> Tensor:
        here = mask[..., None].float()
        away = (positions[:, :, None] - positions[:, None]).square().sum(-1).clamp(min=1e-6).sqrt()
        centres = torch.linspace(0, 8, RADIAL)
        waves = torch.exp(-2 * (away[..., None] - centres).square() / 0.25**2 / 4)
        both = (mask[:, :, None] & mask[:, None] & ~torch.eye(mask.shape[1], dtype=torch.bool))[..., None].float()
        h = self.embed(elements)
        for filters, before, after in zip(self.filters, self.before, self.after, strict=True):
            h = h + after((filters(waves) * both * before(h)[:, None]).sum(2)) * here
        said = self.out(h) * here
        gap, charge, polar = said.unbind(-1)
        number = mask.sum(1).float()
        charge = (charge - charge.sum(1, keepdim=True) / number[:, None]) * mask
        dipole = (charge[..., None] * positions).sum(1).square().sum(-1).clamp(min=1e-6).sqrt()
        counts = torch.nn.functional.one_hot(elements, 5).float().mul(here).sum(1)
        line = torch.cat([counts, torch.ones(len(counts), 1)], 1) @ self.line
        return line + self.spread * torch.stack([gap.sum(1) / number, dipole, polar.sum(1)], 1)


def half(whole: Molecules, which: int) -> Tensor:
    """The even (0) or odd (1) molecules of the training part."""
    return torch.nonzero(whole.part == 0).flatten()[which::2]


def batches(whole: Molecules, rows: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    """Rows of about one length together, in random order."""
    generator = np.random.default_rng(seed)
    mixed = rows[torch.from_numpy(generator.permutation(len(rows)))]
    for block in mixed.split(size * 64):
        parts = block[whole.sizes[block].argsort(stable=True)].split(size)
        for k in generator.permutation(len(parts)):
            yield parts[int(k)]


def answer(network: Regressor, whole: Molecules, rows: Tensor) -> Tensor:
    """What the network says of these rows."""
    most = int(whole.sizes[rows].max())
    mask = torch.arange(most) < whole.sizes[rows][:, None]
    found: Tensor = network(whole.positions[rows, :most], elements_of(whole.kinds[rows, :most]), mask)
    return found


def train(whole: Molecules, out: Path, minutes: float, size: int = 64) -> None:
    """Train on one half of the training part, and say the error on validation molecules."""
    torch.manual_seed(0)
    network, rows = Regressor(), half(whole, 0)
    counts = torch.stack(
        [
            (elements_of(whole.kinds[rows]) == e).where(torch.arange(29) < whole.sizes[rows][:, None], False).sum(1)
            for e in range(5)
        ],
        1,
    )
    design, wanted = torch.cat([counts.float(), torch.ones(len(rows), 1)], 1), whole.properties[rows, :3].clone()
    line = torch.linalg.lstsq(design.double(), wanted.double()).solution.float()
    line[:, 1] = 0  # a dipole is no sum
    network.line.data, network.spread.data = line.contiguous(), (wanted - design @ line).std(0)
    optimizer, began, step, epoch = (
        torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4),
        time.monotonic(),
        0,
        0,
    )
    while (done := (time.monotonic() - began) / 60 / minutes) < 1:
        for chosen in batches(whole, rows, size, epoch):
            done = (time.monotonic() - began) / 60 / minutes
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * min(1.0, 1.3 * (1 - done))
            error = (answer(network, whole, chosen) - whole.properties[chosen, :3]) / network.spread
            optimizer.zero_grad()
            torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step % 200 == 0:
                print(epoch, step, f"{done:.2f}", error.abs().mean(0).mul(network.spread).tolist(), flush=True)
                save_file(network.state_dict(), out)
        epoch += 1
    save_file(network.state_dict(), out)


def load(path: Path) -> Regressor:
    """The regressor that `train` wrote."""
    network = Regressor()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(False)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="qm9.safetensors, as the trainer packs it.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    asked = parser.parse_args()
    train(read(asked.data), asked.out, asked.minutes)


if __name__ == "__main__":
    main()
