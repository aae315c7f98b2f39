"""EDM's and GeoLDM's weights in their published layout: every tensor has its place, and what they compute is theirs."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from perrin.cli import main
from perrin.diffusion.state import Fields
from perrin.errors import InvalidInput, ModelError
from perrin.modality import validate
from perrin.models import find
from perrin_molecule.egnn import Egnn
from perrin_molecule.face import modality
from perrin_molecule.published import adopt, recognise, translate
from perrin_molecule.runtime import MoleculeRuntime

WIDTH = 12

Weights = dict[str, Tensor]


def published(prefix: str, inputs: int, outputs: int, depth: int, rounds: int = 1) -> Weights:
    """Random numbers under the names of egnn/egnn_new.py of both projects."""
    found: Weights = {}

    def linear(name: str, narrow: int, wide: int, bias: bool = True) -> None:
        found[f"{prefix}{name}.weight"] = torch.randn(wide, narrow) / math.sqrt(narrow)
        if bias:
            found[f"{prefix}{name}.bias"] = torch.randn(wide) / 10

    linear("embedding", inputs, WIDTH)
    linear("embedding_out", WIDTH, outputs)
    for k in range(depth):
        for r in range(rounds):
            at = f"e_block_{k}.gcl_{r}"
            linear(f"{at}.edge_mlp.0", 2 * WIDTH + 2, WIDTH)
            linear(f"{at}.edge_mlp.2", WIDTH, WIDTH)
            linear(f"{at}.node_mlp.0", 2 * WIDTH, WIDTH)
            linear(f"{at}.node_mlp.2", WIDTH, WIDTH)
            linear(f"{at}.att_mlp.0", WIDTH, 1)
        linear(f"e_block_{k}.gcl_equiv.coord_mlp.0", 2 * WIDTH + 2, WIDTH)
        linear(f"e_block_{k}.gcl_equiv.coord_mlp.2", WIDTH, WIDTH)
        linear(f"e_block_{k}.gcl_equiv.coord_mlp.4", WIDTH, 1, bias=False)
        found[f"{prefix}e_block_{k}.gcl_equiv.coord_mlp.4.weight"] *= 1e-2
    return found


def gamma() -> Tensor:
    """EDM's polynomial schedule of 1,000 steps, precision 1e-5."""
    x = torch.linspace(0, 1001, 1001, dtype=torch.float64) / 1001
    kept = (1 - x**2) ** 2
    kept = torch.cumprod((kept / torch.cat([torch.ones(1).double(), kept[:-1]])).clamp(1e-3, 1), 0)
    kept = (1 - 2e-5) * kept + 1e-5
    return ((1 - kept) / kept).log().float()


def edm() -> Weights:
    torch.manual_seed(0)
    return {"buffer": torch.zeros(1), "gamma.gamma": gamma(), **published("dynamics.egnn.", 7, 7, depth=3)}


def geoldm() -> Weights:
    torch.manual_seed(1)
    made = {"buffer": torch.zeros(1), "gamma.gamma": gamma(), "vae.buffer": torch.zeros(1)}
    made |= published("dynamics.egnn.", 2, 2, depth=2)
    made |= published("vae.encoder.egnn.", 6, WIDTH, depth=1) | published("vae.decoder.egnn.", 1, 6, depth=2)
    made |= {
        "vae.encoder.final_mlp.0.weight": torch.randn(WIDTH, WIDTH),
        "vae.encoder.final_mlp.0.bias": torch.randn(WIDTH),
    }
    return made | {
        "vae.encoder.final_mlp.2.weight": torch.randn(3, WIDTH),
        "vae.encoder.final_mlp.2.bias": torch.randn(3),
    }


@pytest.fixture(params=[edm, geoldm], ids=["edm", "geoldm"])
def weights(request: pytest.FixtureRequest) -> Weights:
    made: Weights = request.param()
    return made


def test_every_tensor_is_put_somewhere_or_named(weights: Weights) -> None:
    found = translate(weights, "file")
    assert found.kind == recognise([*weights])
    placed = sum(len(parts) for parts in found.networks.values())
    assert placed + len(found.unused) + 1 == len(weights)  # 1: the schedule
    assert all(name == "buffer" or name.startswith("vae.") for name in found.unused)
    assert not any(name.startswith("vae.decoder") for name in found.unused)


def test_a_network_computes_what_the_papers_say(weights: Weights) -> None:
    """Against the equations written out atom by atom, from the file's own names."""
    found = translate(weights, "file")
    network = Egnn(**found.arguments["egnn"])
    network.load_state_dict(found.networks["egnn"])
    network, w = network.double(), {k: v.double() for k, v in weights.items()}
    features, count = found.arguments["egnn"]["features"], 5
    x, h = torch.randn(count, 3).double(), torch.randn(count, features).double()
    said = network(_state(x, h), torch.tensor([400.0]).double())
    a, b = _by_hand(w, "dynamics.egnn.", x, torch.cat([h, torch.full((count, 1), 0.4).double()], 1))
    moved = a - x
    torch.testing.assert_close(said["positions"][0, :count], moved - moved.mean(0), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(said["features"][0, :count], b[:, :-1], atol=1e-9, rtol=1e-7)
    assert not said["features"][0, count:].any()


def _state(x: Tensor, h: Tensor) -> Fields:
    """One molecule, and rubbish beside it."""
    mask = torch.arange(len(x) + 2)[None] < len(x)
    return Fields(
        {
            "positions": torch.cat([x, 9 * torch.ones(2, 3)])[None],
            "features": torch.cat([h, 9 * torch.ones(2, h.shape[1])])[None],
        },
        mask,
    )


def _by_hand(w: Weights, prefix: str, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    def linear(name: str, v: Tensor) -> Tensor:
        out = w[f"{prefix}{name}.weight"] @ v
        bias = w.get(f"{prefix}{name}.bias")
        return out if bias is None else out + bias

    def silu(v: Tensor) -> Tensor:
        return v / (1 + torch.exp(-v))

    begin, count, k = x, len(x), 0
    h = torch.stack([linear("embedding", v) for v in h])
    while f"{prefix}e_block_{k}.gcl_0.edge_mlp.0.weight" in w:
        at = f"e_block_{k}"
        edges = {}
        for i in range(count):
            for j in range(count):
                now, first = ((p[i] - p[j]).square().sum() for p in (x, begin))
                edges[i, j] = torch.stack([now, first])
        fresh = []
        for i in range(count):
            total = torch.zeros(WIDTH).double()
            for j in range(count):
                if i != j:
                    m = silu(linear(f"{at}.gcl_0.edge_mlp.0", torch.cat([h[i], h[j], edges[i, j]])))
                    m = silu(linear(f"{at}.gcl_0.edge_mlp.2", m))
                    total = total + m * torch.sigmoid(linear(f"{at}.gcl_0.att_mlp.0", m))
            inner = silu(linear(f"{at}.gcl_0.node_mlp.0", torch.cat([h[i], total])))
            fresh.append(h[i] + linear(f"{at}.gcl_0.node_mlp.2", inner))
        h, places = torch.stack(fresh), []
        for i in range(count):
            place = x[i]
            for j in range(count):
                if i != j:
                    m = silu(linear(f"{at}.gcl_equiv.coord_mlp.0", torch.cat([h[i], h[j], edges[i, j]])))
                    m = silu(linear(f"{at}.gcl_equiv.coord_mlp.2", m))
                    push = 15 * torch.tanh(linear(f"{at}.gcl_equiv.coord_mlp.4", m))
                    place = place + (x[i] - x[j]) / ((edges[i, j][0] + 1e-8).sqrt() + 1) * push
            places.append(place)
        x, k = torch.stack(places), k + 1
    return x, torch.stack([linear("embedding_out", v) for v in h])


def test_the_schedule_is_the_files(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "generative_model_ema.npy")
    card = adopt(tmp_path / "generative_model_ema.npy", tmp_path / "model")
    kept = torch.cumprod(1 - torch.tensor(card.process["betas"], dtype=torch.float64), 0)
    torch.testing.assert_close(kept, torch.sigmoid(-weights["gamma.gamma"].double()), atol=1e-12, rtol=1e-9)


def test_a_file_is_added_by_the_command_line_and_sampled(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    file = tmp_path / "generative_model_ema.npy"
    torch.save(weights, file)
    name = f"{recognise([*weights])}-qm9"
    assert main(["models", "add", str(file), "--accept-licence"]) == 0, capsys.readouterr().err
    assert name in capsys.readouterr().out
    out = tmp_path / "m.sdf"
    line = ["generate", "molecule", "--model", name, "--steps", "8", "--count", "3", "--seed", "1", "--device", "cpu"]
    assert main([*line, "--out", str(out)]) == 0, capsys.readouterr().err
    assert out.read_text().count("$$$$") == 3


def test_samples_have_their_size_and_centre_and_do_not_depend_on_their_neighbours(
    weights: Weights, tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    card = adopt(tmp_path / "w.pt", tmp_path / "model")
    runtime = MoleculeRuntime.load(card, "cpu")

    def made(**values: Any) -> Any:
        parameters: Any = validate(modality, {"steps": 6, **values}).resolved(card)
        run = runtime.start(parameters, {})
        while not run.done:
            run.step()
            x = run.state["positions"]  # untrained networks throw atoms far away
            assert (x.sum(1) / run.mask.sum(1, keepdim=True)).abs().max() < 1e-4 * x.abs().max().clamp(min=1)
        return run.result, runtime.decode(run.result, parameters, {})

    clean, molecules = made(seed=4, count=3)
    alone, _ = made(seed=5)
    far = clean["positions"].abs().max().clamp(min=1)
    assert (alone["positions"][0] - clean["positions"][1]).abs().max() < 1e-3 * far
    assert [m.molecule.GetNumAtoms() for m in molecules] == clean.mask.sum(1).tolist()
    assert [m.molecule.GetNumAtoms() for m in made(seed=4, count=2, atoms=7)[1]] == [7, 7]


@pytest.mark.parametrize("values", [{"formula": "CH4"}, {"temperature": 0.5}, {"gap": 5.0}])
def test_what_such_a_model_cannot_do_is_refused(values: Any, tmp_path: Path) -> None:
    torch.save(edm(), tmp_path / "w.pt")
    card = adopt(tmp_path / "w.pt", tmp_path / "model")
    with pytest.raises(InvalidInput, match=next(iter(values))):
        validate(modality, values).resolved(card)


# --- files that are none ----------------------------------------------------------------------------------------------


def _without(weights: Weights, name: str) -> Weights:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: _without(w, "gamma.gamma"), "wanted gamma.gamma"),
        (
            lambda w: _without(w, "dynamics.egnn.e_block_1.gcl_0.node_mlp.2.bias"),
            "lacks blocks.1.messages.0.node.2.bias",
        ),
        (lambda w: {**w, "dynamics.egnn.e_block_0.gcl_0.norm.weight": torch.zeros(1)}, "no place for"),
        (lambda w: {**w, "gamma.gamma": torch.zeros(1001)}, "no noise schedule"),
        (lambda w: {**w, "dynamics.egnn.embedding.weight": torch.zeros(WIDTH, 18)}, "17 features"),
        (lambda w: {**w, "dynamics.egnn.embedding_out.bias": torch.zeros(3)}, "unembed.bias is"),
    ],
)
def test_another_file_is_refused_in_one_line(change: Any, message: str) -> None:
    with pytest.raises(ModelError) as refused:
        translate(change(edm()), "file.npy")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


class Boom:
    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return print, ("boom",)


def test_a_pickle_of_more_than_tensors_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "generative_model.npy"
    file.write_bytes(pickle.dumps({"gamma.gamma": Boom()}))
    with pytest.raises(ModelError):
        adopt(file, tmp_path / "model")
    assert "boom" not in capsys.readouterr().out
    assert not (tmp_path / "model").exists()


def test_the_shipped_model_is_not_taken_for_one_of_theirs() -> None:
    from safetensors.torch import load

    assert recognise([*load(find("qm9", "molecule").read("molecule.safetensors"))]) is None
