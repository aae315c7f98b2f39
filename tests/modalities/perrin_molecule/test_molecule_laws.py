"""Laws of the molecule model that ships: symmetry of network, loss and trajectory, masks, and what is fixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from precision import in_float64
from safetensors.torch import load
from torch import Tensor

from perrin.diffusion.noise import Draws
from perrin.diffusion.state import Fields, zero_centre
from perrin.models import find
from perrin.training.objective import Objective
from perrin_molecule.data import BONDS, KINDS, pairs_of
from perrin_molecule.network import MoleculeNetwork, restored
from perrin_molecule.sampling import denoiser_of, started

SIZES = (9, 6, 8)
SCALE = {"positions": 1e-4, "kinds": 1e-3, "bonds": 1e-3}
"""Of what may differ: positions are in units of 1.4 angstrom, the others are logits of up to 30."""


@pytest.fixture(scope="module")
def network() -> MoleculeNetwork:
    """The shipped weights, and a further condition that says something."""
    card = find("qm9", "molecule")
    options = {k: v for k, v in card.architecture["molecule"].items() if k != "kind"}
    torch.manual_seed(0)
    made = MoleculeNetwork(**options, more=4)
    weights = {k: v.float() for k, v in load(card.read("molecule.safetensors")).items()}
    assert all(k.startswith("more.") for k in made.load_state_dict(weights, strict=False).missing_keys)
    assert made.more is not None
    torch.nn.init.normal_(made.more[2].weight, std=0.05)  # type: ignore[arg-type]
    return made.eval().requires_grad_(False)


def state(seed: int = 0, count: int = 9) -> Fields:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(count) < torch.tensor(SIZES)[:, None]
    x = torch.randn(len(SIZES), count, 3, generator=generator)
    kinds = torch.randint(0, 5, (len(SIZES), count), generator=generator) * mask
    bonds = torch.randint(0, BONDS, (len(SIZES), count * (count - 1) // 2), generator=generator)
    return Fields({"positions": zero_centre(x, mask), "kinds": kinds, "bonds": bonds}, mask)


def told(**more: Tensor) -> dict[str, Any]:
    return {"context": torch.zeros(1, 6).expand(len(SIZES), -1), **more}


T = torch.tensor([0.8, 0.3, 0.05])


def turning(seed: int, mirrored: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    turn: Tensor = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).to(dtype))[0]
    return turn if (torch.linalg.det(turn) < 0) == mirrored else -turn


def permuted(x: Fields, order: Tensor) -> Fields:
    """The atoms in another order, and the pairs with them."""
    i, j = pairs_of(len(order))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    a, b = torch.minimum(place[i], place[j]), torch.maximum(place[i], place[j])
    bonds = torch.empty_like(x["bonds"])
    bonds[:, b * (b - 1) // 2 + a] = x["bonds"]
    assert x.mask is not None
    return Fields(
        {"positions": x["positions"][:, order], "kinds": x["kinds"][:, order], "bonds": bonds}, x.mask[:, order]
    )


@pytest.mark.parametrize("mirrored", [False, True])
def test_network_and_loss_turn_with_the_molecule(network: MoleculeNetwork, mirrored: bool) -> None:
    turn, x = turning(1, mirrored), state()
    moved = Fields({**x, "positions": x["positions"] @ turn}, x.mask)
    a, b = network(x, T, **told()), network(moved, T, **told())
    assert (a["positions"] @ turn - b["positions"]).abs().max() < SCALE["positions"]
    for name in ("kinds", "bonds"):
        assert (a[name] - b[name]).abs().max() < SCALE[name]
    objective = Objective.model_validate({
        "prediction": "x0", "fields": {"kinds": {"noise": "uniform"}, "bonds": {"noise": "uniform"}}
    })  # fmt: skip
    loss = objective.loss({"positions": zero_centre}, {"kinds": len(KINDS), "bonds": BONDS})
    noised = loss.noised(x, torch.Generator().manual_seed(0))

    def around(part: Any) -> Fields:
        return Fields({**part, "positions": part["positions"] @ turn}, part.mask)

    elsewhere = noised._replace(state=around(noised.state), clean=around(noised.clean), noise=around(noised.noise))
    first, second = (float(loss.of(network, n, told())[0]) for n in (noised, elsewhere))
    assert first == pytest.approx(second, rel=1e-4)


def test_the_network_moves_with_the_molecule(network: MoleculeNetwork) -> None:
    x, shift = state(), torch.tensor([3.0, -2.0, 0.5])
    assert x.mask is not None
    moved = Fields({**x, "positions": (x["positions"] + shift) * x.mask[..., None]}, x.mask)
    a, b = network(x, T, **told()), network(moved, T, **told())
    gap = (a["positions"] + shift - b["positions"])[x.mask]
    assert gap.abs().max() < SCALE["positions"]
    assert (a["bonds"] - b["bonds"]).abs().max() < SCALE["bonds"]


def test_atoms_in_another_order_give_the_same_in_that_order(network: MoleculeNetwork) -> None:
    x, order = state(), torch.randperm(9, generator=torch.Generator().manual_seed(4))
    a, b = network(x, T, **told()), network(permuted(x, order), T, **told())
    for name in ("positions", "kinds"):
        assert (a[name][:, order] - b[name]).abs().max() < SCALE[name]
    mixed = permuted(Fields({**x, "bonds": a["bonds"]}, x.mask), order)["bonds"]
    assert (mixed - b["bonds"]).abs().max() < SCALE["bonds"]


def test_padding_never_leaks_into_a_network_call(network: MoleculeNetwork) -> None:
    """What lies where no atom is changes no bit, and a molecule alone gives what it gives among longer ones."""
    x = state()
    assert x.mask is not None
    i, j = pairs_of(9)
    rubbish = {
        "positions": torch.where(x.mask[..., None], x["positions"], torch.tensor(1e6)),
        "kinds": torch.where(x.mask, x["kinds"], 7),
        "bonds": torch.where(x.mask[:, i] & x.mask[:, j], x["bonds"], 3),
    }
    a, b = network(x, T, **told()), network(Fields(rubbish, x.mask), T, **told())
    there = {"positions": x.mask, "kinds": x.mask, "bonds": x.mask[:, i] & x.mask[:, j]}
    for name, where in there.items():
        assert torch.equal(a[name][where], b[name][where]), name
    alone = Fields(
        {"positions": x["positions"][1:2, :6], "kinds": x["kinds"][1:2, :6], "bonds": x["bonds"][1:2, :15]},
        x.mask[1:2, :6],
    )
    c = network(alone, T[1:2], context=torch.zeros(1, 6))
    for name, length in {"positions": 6, "kinds": 6, "bonds": 15}.items():
        assert (a[name][1:2, :length] - c[name]).abs().max() < SCALE[name]


# --- what is fixed ----------------------------------------------------------------------------------------------------


def fixed() -> Tensor:
    made = torch.zeros(len(SIZES), 9)
    made[:, :4] = 1
    return made


def test_the_further_condition_and_no_fixed_atom_change_no_bit_of_the_network_as_it_was() -> None:
    """Its last layer is zero before training, so requests without it are the old network's."""
    torch.manual_seed(1)
    options: dict[str, Any] = {"context": 6, "width": 16, "pair_width": 8, "depth": 2, "message": 8, "heads": 2}
    old, new = MoleculeNetwork(**options), MoleculeNetwork(**options, more=4)
    new.load_state_dict(old.state_dict(), strict=False)
    a, b = old(state(), T, **told()), new(state(), T, **told(more=torch.randn(len(SIZES), 4)))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_fixed_atoms_come_back_as_they_are_and_the_others_turn_and_move_with_them(network: MoleculeNetwork) -> None:
    x, here, more = state(), fixed(), torch.randn(len(SIZES), 4)
    a = network(x, T, **told(more=more, fixed=here))
    assert torch.equal(a["positions"][:, :4], x["positions"][:, :4])
    assert torch.equal(a["kinds"][:, :4].argmax(-1), x["kinds"][:, :4])
    assert torch.equal(a["bonds"][:, :6].argmax(-1), x["bonds"][:, :6])
    turn, shift = turning(2, mirrored=True), torch.tensor([1.0, 2.0, -3.0])
    assert x.mask is not None
    moved = Fields({**x, "positions": (x["positions"] @ turn + shift) * x.mask[..., None]}, x.mask)
    b = network(moved, T, **told(more=more, fixed=here))
    assert ((a["positions"] @ turn + shift) - b["positions"])[x.mask].abs().max() < 2e-4
    without = network(x, T, **told(more=more))
    assert not torch.allclose(a["kinds"][:, 4:6], without["kinds"][:, 4:6], atol=1e-2)


def test_what_is_given_is_laid_over_a_state() -> None:
    x, clean = state(0), state(1)
    made = restored(x, clean, fixed())
    assert torch.equal(made["positions"][:, :4], clean["positions"][:, :4])
    assert torch.equal(made["positions"][:, 4:], x["positions"][:, 4:])
    assert torch.equal(made["bonds"][:, :6], clean["bonds"][:, :6])
    assert torch.equal(made["bonds"][:, 6:], x["bonds"][:, 6:])


class Turned:
    """`perrin.diffusion.noise.Draws`, whose positions are turned."""

    def __init__(self, draws: Draws, turn: Tensor) -> None:
        self._draws, self._turn = draws, turn

    def __call__(self, index: int) -> Tensor:
        return torch.as_tensor(self._draws(index)).to(self._turn) @ self._turn


@pytest.mark.parametrize("given", [False, True])
def test_a_trajectory_turns_with_its_noise_and_its_fixed_atoms(network: MoleculeNetwork, given: bool) -> None:
    """In every row to 1e-6, mirrored too; and the centre stays in the origin, or the fixed atoms in their places."""
    from perrin import diffusion as d
    from perrin.diffusion.solvers import solver

    card, process = find("qm9", "molecule"), d.process.from_config({"kind": "flow"})
    turn, clean = turning(5, mirrored=True, dtype=torch.float64), state(3)
    grid = d.grid.shifted(process, 12, shift=1.0)
    centred = clean["positions"][:, :4] - clean["positions"][:, :4].mean(1, keepdim=True)
    places = torch.zeros_like(clean["positions"]).double()
    places[:, :4] = centred

    def run(around: Tensor | None) -> Any:
        condition = {"temperature": torch.tensor([0.2]), **{k: v[:1] for k, v in told(more=torch.zeros(1, 4)).items()}}
        if given:
            there = places if around is None else places @ around
            condition |= {"fixed.atoms": fixed(), "fixed.positions": there}
            condition |= {"fixed.kinds": clean["kinds"], "fixed.bonds": clean["bonds"]}
        made = started(
            denoiser_of(network, process, 8, fast=False), solver("ddpm")(grid), grid, card.data["noise"], SIZES,
            range(3), condition, 9,
        )  # fmt: skip
        if around is not None:
            made._draws = {"positions": Turned(made._draws["positions"], around)}  # type: ignore[dict-item]
            made._registers["positions"] = [x @ around for x in made._registers["positions"]]
        return made

    with in_float64(network):
        plain, turned = run(None), run(turn)
        while not plain.done:
            plain.step()
            turned.step()
            a, b = plain.state, turned.state
            assert torch.equal(a["kinds"], b["kinds"])
            assert torch.equal(a["bonds"], b["bonds"])
            assert (a["positions"] @ turn - b["positions"]).abs().max() < 1e-6
            assert not a["positions"][~a.mask].any()
            if not given:
                assert (a["positions"].sum(1) / a.mask.sum(1, keepdim=True)).abs().max() < 1e-5
            else:
                assert torch.equal(plain.clean["positions"][:, :4], places[:, :4])
    if given:
        assert torch.equal(plain.result["positions"][:, :4], places[:, :4])
        assert torch.equal(plain.result["kinds"][:, :4], clean["kinds"][:, :4])
        assert torch.equal(plain.result["bonds"][:, :6], clean["bonds"][:, :6])
