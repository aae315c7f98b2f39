"""Adapters that differ by sample give, in one batch, what merged weights give one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.engine.batch import Keys, Member, Stacker
from perrin.errors import InvalidInput
from perrin.nn.lora import Adapted, adapter

FLOW = d.process.flow()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x)) + t[:, None, None])
        return out


def weights(seed: int, rank: int = 2) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        "base_model.model.first.lora_A.weight": torch.randn(rank, 4, generator=made),
        "base_model.model.first.lora_B.weight": torch.randn(8, rank, generator=made),
        "base_model.model.last.lora_A.weight": torch.randn(rank, 8, generator=made),
        "base_model.model.last.lora_B.weight": torch.randn(4, rank, generator=made),
    }


def merged(network: Small, tensors: dict[str, Tensor], scale: float) -> Small:
    made = copy.deepcopy(network)
    with torch.no_grad():
        for name in ("first", "last"):
            a, b = (tensors[f"base_model.model.{name}.lora_{k}.weight"] for k in "AB")
            getattr(made, name).weight += scale * b @ a
    return made


@torch.no_grad()
def test_requests_with_different_adapters_share_a_call() -> None:
    torch.manual_seed(0)
    network = Small()
    calls = []
    adapted = Adapted(copy.deepcopy(network))

    def counted(x: Tensor, t: Tensor, **condition: Any) -> Any:
        calls.append(len(x))
        return adapted(x, t, **condition)

    counted.fills = adapted.fills  # type: ignore[attr-defined]
    denoiser = d.Denoiser(counted, FLOW, "x0")
    part = {name: tensor for name, tensor in weights(3, rank=3).items() if "last" in name}
    adapters = [adapter(weights(1), 0.5), adapter(weights(2), 0.5), {}, adapter(part, 0.5)]
    plans = [d.solvers.ddim(d.grid.linspace(FLOW, steps)) for steps in (3, 5, 4, 2)]
    runs = [
        d.start(denoiser, plan, shape=(6, 4), seeds=[i, i + 7], condition=condition)
        for i, (plan, condition) in enumerate(zip(plans, adapters, strict=True))
    ]
    members = [Member(e, Keys().of(e)) for e in (run.request() for run in runs)]
    answers = Stacker().evaluate(members, [100], 100, lambda key, samples, run: run())
    assert calls == [8], "with another rank, other layers, or none at all"
    whole = {name: torch.zeros_like(tensor) for name, tensor in weights(3, rank=3).items()} | part
    networks = [merged(network, w, 0.5) for w in (weights(1), weights(2))] + [network, merged(network, whole, 0.5)]
    for run, answer, alone in zip(runs, answers, networks, strict=True):
        assert not isinstance(answer, Exception)
        e = run.request()
        wanted = d.Denoiser(alone, FLOW, "x0").evaluate(e.x, e.point, {}).clean
        torch.testing.assert_close(answer[0].clean, wanted)
    stranger = d.Denoiser(adapted.network, FLOW, "x0")
    other = d.start(stranger, plans[0], shape=(6, 4), seeds=[1], condition=adapter(weights(1))).request()
    assert Keys().of(other)[0] != members[0].keys[0], "what a network does not fill up keeps requests apart"


@torch.no_grad()
def test_an_adapter_acts_only_in_its_own_call() -> None:
    network = Small()
    adapted = Adapted(network)
    x, t = torch.randn(2, 6, 4), torch.zeros(2)
    plain = adapted(x, t)
    assert not torch.equal(adapted(x, t, **adapter(weights(1))), plain)
    assert torch.equal(adapted(x, t), plain)


def test_a_wrong_adapter_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"lora_A\.weight"):
        adapter({"first.weight": torch.zeros(2, 4)})
    with pytest.raises(InvalidInput, match=r"lora\.first\.up beside it"):
        adapter({"first.lora_A.weight": torch.zeros(2, 4)})
    adapted = Adapted(Small())
    x, t = torch.zeros(1, 6, 4), torch.zeros(1)
    with pytest.raises(InvalidInput, match="such as first"):
        adapted(x, t, **{"lora.middle.down": torch.zeros(1, 2, 4), "lora.middle.up": torch.zeros(1, 8, 2)})
    with pytest.raises(InvalidInput, match="rx4 for each sample"):
        adapted(x, t, **{"lora.first.down": torch.zeros(1, 2, 5), "lora.first.up": torch.zeros(1, 8, 2)})
