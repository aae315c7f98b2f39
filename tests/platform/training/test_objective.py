"""The objective's laws: its loss is the weighted error of the clean estimate, whatever the network predicts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from perrin import diffusion as d
from perrin.diffusion import loss as losses
from perrin.diffusion.prediction import PREDICTIONS
from perrin.diffusion.state import Fields, zero_centre
from perrin.errors import InvalidInput, UnknownName
from perrin.training.objective import FieldObjective, Objective, drop
from perrin.training.times import Times

PROCESSES: dict[str, dict[str, Any]] = {
    "flow": {"kind": "flow"},
    "linear": {"kind": "linear"},
    "cosine": {"kind": "cosine"},
    "edm": {"kind": "edm"},
}


def network(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + torch.sin(3 * x) + 0.01 * t.view(-1, 1, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weight", ["network", *losses.WEIGHTS])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_is_the_weighted_error_of_the_clean_estimate(
    power: Literal[1, 2], process: str, prediction: str, weight: str
) -> None:
    config = PROCESSES[process]
    middle = Times(kind="uniform_log_snr", even=False)
    made = Objective(process=config, prediction=prediction, weight=weight, times=middle, power=power).loss()
    clean = torch.randn(64, 3, 5, generator=seeded(1), dtype=torch.float64)
    noised = made.noised(clean, seeded())
    t = noised.t.numpy()
    keep = np.abs(made.process.log_snr(t)) < 6  # nearer to the ends every parameterization is ill-conditioned somewhere
    assert keep.sum() > 8
    noised = type(noised)(*(part[torch.from_numpy(keep)] for part in noised))  # type: ignore[index]
    found, _ = made.of(network, noised, {})
    t = noised.t.numpy()
    estimate = d.Denoiser(network, d.process.from_config(config), prediction)(noised.state, t)
    error = ((estimate - noised.clean).abs() ** power).flatten(1).mean(1).numpy()
    alpha, sigma = made.process.alpha(t), made.process.sigma(t)
    if weight == "network":
        counts = 1 / np.asarray(d.prediction.coefficients(prediction, t, alpha, sigma).c_out) ** 2
    else:
        counts = losses.weight(weight, made.process.log_snr(t))
    assert float(found) == pytest.approx(float((counts ** (power / 2) * error).mean()), rel=2e-4)


def test_a_state_is_noised_by_its_process() -> None:
    made = Objective().loss()
    clean = torch.randn(1000, 4, generator=seeded(1))
    noised = made.noised(clean, seeded())
    level = noised.t[:, None].float()
    torch.testing.assert_close(noised.state, (1 - level) * clean + level * noised.noise)
    assert abs(float(noised.noise.std()) - 1) < 0.05  # type: ignore[union-attr]
    again = made.noised(clean, seeded())
    assert torch.equal(again.state, noised.state), "a batch's noise depends on its generator alone"


def test_an_offset_moves_whole_channels() -> None:
    made = Objective(offset_noise=2.0).loss()
    noise = made.noised(torch.zeros(500, 3, 40), seeded()).noise
    assert isinstance(noise, Tensor)
    assert abs(float(noise.mean(2).std()) - 2.0) < 0.15
    assert abs(float((noise - noise.mean(2, keepdim=True)).std()) - 1.0) < 0.02


@given(st.integers(2, 300), st.integers(0, 99), st.sampled_from(["uniform", "logit_normal", "log_normal"]))
@settings(max_examples=40)
def test_even_times_are_spread_evenly(size: int, seed: int, kind: Any) -> None:
    process = d.process.edm() if kind == "log_normal" else d.process.flow()
    drawn = np.sort(Times(kind=kind, even=True).draw(size, process, seeded(seed)))
    quantiles = Times(kind=kind).at((torch.arange(size + 1, dtype=torch.float64) / size).clamp(1e-6, 1 - 1e-6), process)
    lower, upper = np.sort(quantiles)[:-1], np.sort(quantiles)[1:]
    slack = 1e-9 + 1e-6 * np.abs(upper)
    assert ((drawn >= lower - slack) & (drawn <= upper + slack)).all(), "one in every share of the distribution"


def test_times_have_their_distributions() -> None:
    flow, edm = d.process.flow(), d.process.edm()
    drawn = Times(kind="logit_normal", mean=0.5, deviation=2.0).draw(20_000, flow, seeded())
    inner = (drawn - flow.t_min) / (flow.t_max - flow.t_min)
    logits = np.log(inner / (1 - inner))
    assert (logits.mean(), logits.std()) == pytest.approx((0.5, 2.0), abs=0.02)
    sigma = edm.sigma(Times(kind="log_normal", mean=-1.2, deviation=1.2).draw(20_000, edm, seeded()))
    assert (np.log(sigma).mean(), np.log(sigma).std()) == pytest.approx((-1.2, 1.2), abs=0.02)
    snr = flow.log_snr(Times(kind="uniform_log_snr").draw(20_000, flow, seeded()))
    assert np.histogram(snr, 10)[0].tolist() == pytest.approx([2000] * 10, abs=3)


# --- fields -----------------------------------------------------------------------------------------------------------


def molecules(extra: int = 0) -> tuple[Fields, dict[str, Any]]:
    """Two molecules of 3 and 5 atoms: positions, elements of 4, bonds of 3; ``extra`` places of padding."""
    places = 5 + extra
    mask = torch.arange(places) < torch.tensor([[3], [5]])
    positions = zero_centre(torch.randn(2, places, 3, generator=seeded(2)), mask)
    elements = torch.randint(4, (2, places), generator=seeded(3)) * mask
    bonds = torch.randint(3, (2, places, places), generator=seeded(4))
    fields = Fields({"positions": positions, "elements": elements, "bonds": bonds}, mask)
    return fields, {"spaces": {"positions": zero_centre}, "classes": {"elements": 4, "bonds": 3}}


def answer(x: Fields, t: Tensor) -> dict[str, Tensor]:
    elements = torch.nn.functional.one_hot(x["elements"], 4).float()
    bonds = torch.nn.functional.one_hot(x["bonds"], 3).float()
    return {"positions": 0.5 * x["positions"], "elements": elements, "bonds": 2 * bonds}


def test_fields_have_losses_of_their_own_under_the_mask() -> None:
    clean, kinds = molecules()
    shares = {"bonds": FieldObjective(share=0.25, noise="absorbing"), "elements": FieldObjective(share=0.0)}
    made = Objective(fields=shares).loss(**kinds)
    noised = made.noised(clean, seeded())
    assert isinstance(noised.state, Fields)
    assert isinstance(noised.noise, Fields)
    mask = clean.mask
    assert mask is not None
    torch.testing.assert_close(noised.noise["positions"].sum(1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert not noised.noise["positions"][~mask].any()
    changed = noised.state["bonds"] != clean["bonds"]
    assert set(noised.state["bonds"][changed].tolist()) == {2}, "an absorbing field goes to its last class alone"
    total, parts = made.of(answer, noised, {})
    level = noised.t.float().view(2, 1, 1)
    aim = noised.noise["positions"] - clean["positions"]
    error = (0.5 * ((1 - level) * clean["positions"] + level * noised.noise["positions"]) - aim).square()
    wanted = torch.stack([error[i, mask[i]].mean() for i in range(2)]).mean()
    torch.testing.assert_close(parts["positions"], wanted)
    pairs = []
    for i, count in enumerate((3, 5)):
        logits = 2 * torch.nn.functional.one_hot(noised.state["bonds"][i, :count, :count], 3).float()
        pairs.append(
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), clean["bonds"][i, :count, :count].flatten())
        )
    torch.testing.assert_close(parts["bonds"], 0.25 * torch.stack(pairs).mean())
    assert float(parts["elements"]) == 0.0
    torch.testing.assert_close(total, parts["positions"] + parts["bonds"])


def test_a_categorical_field_keeps_its_value_as_often_as_its_process_says() -> None:
    made = Objective(times=Times(even=False)).loss(classes={"": 5})
    clean = torch.full((4000, 50), 3)
    noised = made.noised(clean, seeded())
    assert isinstance(noised.state, Tensor)
    kept = (noised.state == 3).float().mean(1)
    for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):
        there = (noised.t >= low) & (noised.t < high)
        alpha = 1 - noised.t[there].mean()
        assert float(kept[there].mean()) == pytest.approx(float(alpha + (1 - alpha) / 5), abs=0.01)


def test_classes_are_noised_to_the_chances_that_are_given() -> None:
    chances = (0.7, 0.0, 0.2, 0.1)
    made = Objective(times=Times(even=False), fields={"": FieldObjective(noise=chances)}).loss(classes={"": 4})
    noised = made.noised(torch.full((3000, 60), 1), seeded())
    assert isinstance(noised.state, Tensor)
    late = noised.state[noised.t > 0.9]
    late = late[late != 1]
    shares = late.bincount(minlength=4).double() / late.numel()
    assert shares.tolist() == pytest.approx(chances, abs=0.01)


def test_a_list_of_pairs_counts_those_that_are_there() -> None:
    made = Objective(fields={"pairs": FieldObjective(share=2.0)}).loss(classes={"pairs": 3})
    mask = torch.arange(5) < torch.tensor([[5], [4], [2]])
    clean = Fields({"points": torch.zeros(3, 5, 3), "pairs": torch.zeros(3, 10, dtype=torch.long)}, mask)
    logits = torch.zeros(3, 10, 3)
    count = torch.tensor([10, 6, 1])
    logits[torch.arange(10) >= count[:, None]] = torch.tensor([-50.0, 50.0, 0.0])  # wrong, but not there

    def answer(x: Any, t: Tensor) -> Any:
        return {"points": torch.zeros_like(x["points"]), "pairs": logits}

    _, parts = made(answer, clean, {}, seeded())
    assert float(parts["pairs"]) == pytest.approx(2 * np.log(3), rel=1e-5)


# --- teachers and conditions ------------------------------------------------------------------------------------------


def test_a_teacher_says_what_the_estimate_should_be() -> None:
    made = Objective(prediction="x0", weight="uniform").loss()
    clean = torch.randn(16, 3, 4, generator=seeded(1))
    asked: list[Any] = []

    def teacher(noised: Any, condition: Any) -> Tensor:
        asked.append((noised.t.shape, condition))
        return noised.clean + 1.0

    value, _ = made(lambda x, t: torch.zeros_like(x), clean, {}, seeded(), teacher)
    assert float(value) == pytest.approx(float((clean + 1).square().mean()), rel=1e-5)
    assert asked == [(torch.Size([16]), {})]
    for prediction in ("velocity", "v", "epsilon"):
        made = Objective(prediction=prediction, weight="uniform", times=Times(kind="logit_normal")).loss()
        noised = made.noised(clean, seeded())
        value, _ = made.of(network, noised, {}, noised.clean + 1.0)
        estimate = d.Denoiser(network, made.process, prediction)(noised.state, noised.t.numpy())
        assert float(value) == pytest.approx(float((estimate - clean - 1).square().mean()), rel=1e-3)


def test_conditions_are_dropped_apart_and_together() -> None:
    dropped = drop(40_000, {"text": 0.1, "style": 0.3, "all": 0.2}, np.random.default_rng(0))
    assert dropped["text"].mean() == pytest.approx(0.1 + 0.9 * 0.2, abs=0.01)
    assert dropped["style"].mean() == pytest.approx(0.3 + 0.7 * 0.2, abs=0.01)
    assert (dropped["text"] & dropped["style"]).mean() == pytest.approx(0.2 + 0.8 * 0.03, abs=0.01)


def test_what_an_objective_cannot_be_is_said() -> None:
    with pytest.raises(UnknownName, match="one of uniform"):
        Objective(weight="much").loss()
    with pytest.raises(InvalidInput, match="uniform or absorbing"):
        Objective(fields={"": FieldObjective(noise="loud")}).loss(classes={"": 3})
    clean, kinds = molecules()
    made = Objective().loss(**kinds)
    with pytest.raises(InvalidInput, match="an output for each of"):
        made(lambda x, t: {"positions": x["positions"]}, clean, {}, seeded())
