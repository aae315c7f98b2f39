"""Adapters, held weights and learnt words: what they change, and what they must leave alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perrin.errors import InvalidInput, ModelError
from perrin.nn import DiffusionTransformer
from perrin.nn.lora import Adapted
from perrin.nn.lora import adapter as conditions
from perrin.training.adapters import AdapterOptions, inject, load_adapter, merge, save_adapter, stack
from perrin.training.elastic import Anchor, ElasticOptions
from perrin.training.inversion import Inverted, load_word, save_word, say

X, T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.7])
CONTEXT = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> DiffusionTransformer:
    torch.manual_seed(0)
    made = DiffusionTransformer(3, 24, 2, 2, 32, 1, context=12)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def train(network: nn.Module, goal: float, steps: int = 30) -> None:
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(X, T, CONTEXT) - goal).square().mean().backward()
        optimizer.step()


def trained(network: DiffusionTransformer, goal: float, path: Path, layers: str = "") -> nn.Module:
    adapted = copy.deepcopy(network)
    inject(adapted, AdapterOptions(rank=4, alpha=8, layers=layers))
    train(adapted, goal)
    save_adapter(adapted, path)
    return adapted


def test_an_adapter_begins_as_nothing_and_leaves_the_weights_alone(network: DiffusionTransformer) -> None:
    adapted = copy.deepcopy(network)
    names = inject(adapted, AdapterOptions(rank=4, layers=r"qkv|up$"))
    assert names == [f"blocks.{i}.{part}" for i in range(2) for part in ("qkv", "up")]
    torch.testing.assert_close(adapted(X, T, CONTEXT), network(X, T, CONTEXT))
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trainable) == 8
    assert all("lora_" in name for name in trainable)
    before = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    wanted = float((adapted(X, T, CONTEXT) - 1).square().mean().detach())
    train(adapted, 1.0)
    assert float((adapted(X, T, CONTEXT) - 1).square().mean().detach()) < wanted / 2
    assert all(torch.equal(p, before[name]) for name, p in adapted.named_parameters() if name in before)
    with pytest.raises(InvalidInput, match=r"such as embed"):
        inject(copy.deepcopy(network), AdapterOptions(layers="nothing"))


def test_saved_loaded_merged_and_taken_away(network: DiffusionTransformer, tmp_path: Path) -> None:
    adapted = trained(network, 1.0, tmp_path / "one.safetensors")
    adapter = load_adapter(tmp_path / "one.safetensors")
    assert adapter.scale == 2.0
    merged = merge(copy.deepcopy(network), adapter)
    torch.testing.assert_close(merged(X, T, CONTEXT), adapted(X, T, CONTEXT), atol=5e-3, rtol=1e-2)
    back = merge(merged, adapter, -1.0)
    torch.testing.assert_close(back(X, T, CONTEXT), network(X, T, CONTEXT), atol=1e-5, rtol=1e-4)


def test_stacked_adapters_do_what_each_does_by_its_weight(network: DiffusionTransformer, tmp_path: Path) -> None:
    trained(network, 1.0, tmp_path / "one.safetensors")
    trained(network, -1.0, tmp_path / "two.safetensors", layers="qkv")
    one, two = (load_adapter(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    both = stack([(one, 0.7), (two, 0.4)])
    apart = merge(merge(copy.deepcopy(network), one, 0.7), two, 0.4)
    torch.testing.assert_close(
        merge(copy.deepcopy(network), both)(X, T, CONTEXT), apart(X, T, CONTEXT), atol=1e-5, rtol=1e-4
    )
    flat = {f"{name}.lora_A.weight": down for name, (down, _) in both.layers.items()}
    flat |= {f"{name}.lora_B.weight": up for name, (_, up) in both.layers.items()}
    running = Adapted(copy.deepcopy(network))(X, T, context=CONTEXT, **conditions(flat))
    torch.testing.assert_close(running, apart(X, T, CONTEXT), atol=1e-4, rtol=1e-3)


def test_what_is_no_adapter_is_refused(network: DiffusionTransformer, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="names that end with"):
        load_adapter(path)
    save_file({"a.lora_A.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ModelError, match="a has only one half"):
        load_adapter(path)
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(path)
    save_file({"embed.lora_A.weight": torch.zeros(2, 99), "embed.lora_B.weight": torch.zeros(24, 2)}, path)
    with pytest.raises(InvalidInput, match="embed"):
        merge(network, load_adapter(path))
    with pytest.raises(InvalidInput, match="injected"):
        save_adapter(network, path)


# --- elastic weight consolidation -------------------------------------------------------------------------------------


def data(which: int, number: int) -> tuple[Tensor, Tensor]:
    """Old: y = 2 a on the first input. New: y = -3 b on the second."""
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1000 * which + number))
    x[:, 1 - which] = 0
    return x, (2.0 * x[:, :1] if which == 0 else -3.0 * x[:, 1:2])


def losses(network: nn.Module) -> tuple[float, float]:
    with torch.no_grad():
        found = [float((network(x) - y).square().mean()) for x, y in (data(which, 99) for which in (0, 1))]
    return found[0], found[1]


def test_what_old_data_need_is_held_while_the_new_is_learnt() -> None:
    """Both losses, with and without the anchor."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for number in range(400):
        x, y = data(0, number)
        optimizer.zero_grad()
        (network(x) - y).square().mean().backward()
        optimizer.step()
    found = {}
    for strength in (None, 3.0):
        one = copy.deepcopy(network)
        anchor = None
        if strength is not None:

            def old(number: int, one: nn.Module = one) -> Tensor:
                x, y = data(0, number)
                return (one(x) - y).square().mean()

            anchor = Anchor(one, old, ElasticOptions(strength=strength, batches=50))
            assert float(anchor.penalty().detach()) == 0.0
        optimizer = torch.optim.Adam(one.parameters(), lr=5e-3)
        for number in range(400):
            x, y = data(1, number)
            optimizer.zero_grad()
            loss = (one(x) - y).square().mean()
            (loss if anchor is None else loss + anchor.penalty()).backward()
            optimizer.step()
        found[strength] = losses(one)
    (old_without, new_without), (old_with, new_with) = found[None], found[3.0]
    assert old_with < old_without / 2, "the old is remembered"
    assert new_with < 2.0 < losses(network)[1], "and the new is learnt"
    assert new_without <= new_with


# --- textual inversion ------------------------------------------------------------------------------------------------


def test_a_word_is_learnt_and_nothing_else(network: DiffusionTransformer, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inverted = Inverted(network, 0.1 * torch.randn(3, 12, generator=torch.Generator().manual_seed(2)))
    assert [name for name, p in inverted.named_parameters() if p.requires_grad] == ["word"]
    start = float((inverted(X, T, CONTEXT) - 0.5).square().mean().detach())
    train(inverted, 0.5, steps=60)
    assert float((inverted(X, T, CONTEXT) - 0.5).square().mean().detach()) < start
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    save_word(inverted, "blob", tmp_path / "blob.safetensors")
    word, vectors = load_word(tmp_path / "blob.safetensors")
    assert word == "blob"
    context, mask = say(CONTEXT, None, vectors)
    assert context.shape == (2, 8, 12)
    torch.testing.assert_close(network(X, T, context, mask), inverted(X, T, CONTEXT), atol=2e-3, rtol=1e-2)
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="no learnt word"):
        load_word(tmp_path / "bad.safetensors")
    with pytest.raises(InvalidInput, match="vectors, width"):
        Inverted(network, torch.zeros(3))
