"""The bound on a molecule's likelihood: exact where the best denoiser is known, and of (N - 1) 3 degrees of freedom."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion.denoiser import Denoiser
from perrin.diffusion.state import Fields, zero_centre
from perrin.models import find
from perrin_molecule.data import BONDS, KINDS
from perrin_molecule.likelihood import bound
from perrin_molecule.metrics import Molecule
from perrin_molecule.runtime import MoleculeRuntime

SPREAD = 0.7
NOISE = {"kinds": [0.5, 0.3, 0.2], "bonds": [0.9, 0.1]}
DATA = {"kinds": [0.2, 0.2, 0.6], "bonds": [0.6, 0.4]}


def known(state: Fields, t: Tensor) -> dict[str, Tensor]:
    """The best estimate for positions from a normal of deviation `SPREAD`, and for classes drawn apart from `DATA`."""
    keep, noise = (1 - t)[:, None, None], t[:, None, None]
    shrunk = keep * SPREAD**2 / (keep**2 * SPREAD**2 + noise**2)
    found = {"positions": shrunk * state["positions"]}
    for name, chances in DATA.items():
        at = torch.tensor(NOISE[name])[state[name]][..., None]
        here = torch.nn.functional.one_hot(state[name], len(chances)).float()
        found[name] = (torch.tensor(chances) * (keep * here + (1 - keep) * at)).log()
    return found


def drawn(sizes: list[int]) -> Fields:
    generator = torch.Generator().manual_seed(0)
    most = max(sizes)
    mask = torch.arange(most) < torch.tensor(sizes)[:, None]
    x = zero_centre(SPREAD * torch.randn(len(sizes), most, 3, generator=generator), mask)
    shapes = {"kinds": (len(sizes), most), "bonds": (len(sizes), most * (most - 1) // 2)}
    classes = {
        n: torch.multinomial(torch.tensor(DATA[n]), math.prod(s), True, generator=generator).view(s)
        for n, s in shapes.items()
    }
    return Fields({"positions": x, **classes}, mask)


def test_the_bound_is_the_density_where_the_best_denoiser_is_known() -> None:
    """A molecule of n atoms has 3 (n - 1) normal numbers, n kinds and n (n - 1) / 2 bonds, all apart."""
    sizes = [3] * 300 + [5] * 300
    clean, process = drawn(sizes), d.process.from_config({"kind": "flow"})
    denoiser = Denoiser(known, process, {"positions": "x0", "kinds": "logits", "bonds": "logits"})
    found = bound(denoiser, clean, NOISE, steps=300, draws=300)
    for size, part in ((3, slice(0, 300)), (5, slice(300, 600))):
        freedom, pairs = 3 * (size - 1), size * (size - 1) // 2
        square = clean["positions"][part].square().flatten(1).sum(1)
        true = freedom * math.log(SPREAD * math.sqrt(2 * math.pi)) + square / (2 * SPREAD**2)
        for name, count in (("kinds", size), ("bonds", pairs)):
            true = true - torch.tensor(DATA[name]).log()[clean[name][part, :count]].sum(1)
        gap = found[part] - true
        error = float(gap.std()) / math.sqrt(300)
        assert abs(float(gap.mean())) < 4 * error + 0.02 * freedom


def test_another_unit_of_length_changes_the_density_by_its_degrees_of_freedom() -> None:
    clean, process = drawn([3, 5]), d.process.from_config({"kind": "flow"})
    denoiser = Denoiser(known, process, {"positions": "x0", "kinds": "logits", "bonds": "logits"})
    plain, larger = (bound(denoiser, clean, NOISE, steps=50, scale=scale) for scale in (1.0, 2.0))
    torch.testing.assert_close(larger - plain, torch.tensor([6.0, 12.0]) * math.log(2))


@pytest.fixture(scope="module")
def runtime() -> MoleculeRuntime:
    return MoleculeRuntime.load(find("qm9", "molecule"), "cpu")


def methane(stretched: float) -> Molecule:
    corners = torch.tensor([[1.0, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    corners[0] *= stretched
    bonds = torch.zeros(10, dtype=torch.long)
    bonds[[0, 1, 3, 6]] = 1
    return Molecule(0.63 * torch.cat([torch.zeros(1, 3), corners]), torch.tensor([1, 0, 0, 0, 0]), bonds)


def test_a_molecule_is_likelier_than_the_same_one_with_a_bond_stretched_or_taken_away(runtime: MoleculeRuntime) -> None:
    maker: Any = runtime._maker
    whole, long = methane(1.0), methane(1.6)
    loose = whole._replace(bonds=whole.bonds * (torch.arange(10) > 0))
    found = maker.likelihood([whole, long, loose, whole], draws=12)
    assert found.shape == (4,)
    assert found[1] > found[0] + 20
    assert found[2] > found[0] + 5
    turned = whole._replace(positions=whole.positions @ torch.linalg.qr(torch.randn(3, 3))[0] + 2.0)
    again = maker.likelihood([turned, long, loose, whole], draws=12)
    assert abs(float(again[0] - found[0])) < 0.2 * abs(float(found[1] - found[0]))


def test_classes_of_the_bound_are_the_models() -> None:
    assert len(find("qm9", "molecule").data["noise"]["kinds"]) == len(KINDS)
    assert len(find("qm9", "molecule").data["noise"]["bonds"]) == BONDS
