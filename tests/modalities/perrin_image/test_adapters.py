"""LoRA by request: what an adapter does, how several add up, what is written down, and what is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import perrin
from perrin.engine import Engine, Finished, Request
from perrin.errors import InvalidInput, ModelError
from perrin.models import find
from perrin.models.card import ModelCard, read_card, write_card
from perrin.models.weights import load_network
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin.training.adapters import load_adapter, merge
from perrin_image.adapters import resolved_lora
from perrin_image.beside import Beside
from perrin_image.data import Record
from perrin_image.data.pack import write_pack
from perrin_image.data.pencil import INK, PAPER
from perrin_image.face import ImageParameters, modality
from perrin_image.runtime import ImageRuntime
from perrin_image.training.dataset import load_pictures

FEW: dict[str, Any] = {"steps": 4, "sampler": "ddim", "seed": 7}


def write(folder: Path, name: str, layers: str, rank: int, base: str = "emoji-64", scale: float = 0.05) -> ModelCard:
    """An adapter of random weights for the layers that match."""
    draws, tensors = torch.Generator().manual_seed(rank), {}
    for layer, module in load_network(find("emoji-64"), "transformer").named_modules():
        if isinstance(module, nn.Linear) and re.search(layers, layer):
            down, up = torch.randn(rank, module.in_features, generator=draws), torch.zeros(module.out_features, rank)
            tensors[f"{layer}.lora_A.weight"] = down * scale
            tensors[f"{layer}.lora_B.weight"] = up.normal_(generator=draws) * scale
    (folder / name).mkdir()
    save_file(tensors, folder / name / "adapter.safetensors", {"scale": "2.0"})
    card = ModelCard(name=name, modality="image", base=base, title=name, licence="MIT")
    return write_card(card, folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write(folder, "wild", r"blocks\.\d\.qkv", 2)
    write(folder, "calm", r"blocks\.[01]\.(up|down)", 5)
    write(folder, "elsewhere", "qkv", 2, base="another")
    write(folder, "broken", "qkv", 2)
    save_file({"nothing.lora_A.weight": torch.zeros(2, 3), "nothing.lora_B.weight": torch.zeros(3, 2)},
              folder / "broken" / "adapter.safetensors")  # fmt: skip
    write_card(read_card(folder / "broken"), folder / "broken")
    return folder


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERRIN_MODELS", str(folder))
    return folder


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("image", device="cpu")


def asked(**values: Any) -> ImageParameters:
    parameters = ImageParameters.model_validate({"prompt": "a dog", **FEW, **values})
    return parameters.resolved(find("emoji-64"))


def far(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one.astype(int) - two.astype(int)).mean())


def test_an_adapter_gives_what_merged_weights_give(installed: Path) -> None:
    card = find("emoji-64")
    runtime = ImageRuntime.load(card, "cpu")
    plain = runtime.start(asked()).run()
    merged = ImageRuntime.load(card, "cpu")
    merge(merged._network, load_adapter(installed / "wild" / "adapter.safetensors"), 0.7)
    merge(merged._network, load_adapter(installed / "calm" / "adapter.safetensors"), -1.5)
    wanted = merged.start(asked()).run()
    got = runtime.start(asked(lora=["wild:0.7", "calm:-1.5"])).run()
    assert (got - plain).abs().max() > 0.1
    torch.testing.assert_close(got, wanted, atol=2e-3, rtol=1e-3)
    assert torch.equal(runtime.start(asked()).run(), plain), "it acts in its own request alone"
    assert torch.equal(runtime.start(asked(lora=["wild:0"])).run(), plain), "and a weight of 0 is nothing"


def test_requests_with_and_without_share_calls(installed: Path) -> None:
    engine, sizes = Engine("cpu", tick_seconds=3600.0), []  # however slow the machine is, a tick is for all of them
    runtime = engine.model(modality, find("emoji-64"))
    network = runtime._network  # type: ignore[attr-defined]
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    wishes = [{}, {"lora": ["wild"]}, {"lora": ["calm:0.5", "wild"]}, {"lora": ["calm:0.5"], "strict": True}]
    requests = [Request(str(n), "image", asked(**wish).model_dump(), "png") for n, wish in enumerate(wishes)]
    together = _pixels(engine, requests)
    assert max(sizes) >= 4, "a network call computed samples of several requests"
    for number, request in enumerate(requests):
        alone = _pixels(Engine("cpu"), [request])[str(number)]
        assert far(together[str(number)], alone) < 1
    assert (together["3"] == _pixels(Engine("cpu"), [requests[3]])["3"]).all(), "strict: to the bit"


def _pixels(engine: Engine, requests: list[Request]) -> dict[str, np.ndarray[Any, Any]]:
    for request in requests:
        engine.admit(request)
    found = {}
    while engine.active:
        for event in engine.tick():
            if isinstance(event, Finished):
                found[event.id] = np.asarray(Image.open(io.BytesIO(event.files[0].data)))
    return found


def test_a_request_says_which_weights_it_used(installed: Path, generate: perrin.Generator) -> None:
    made = generate("a dog", lora=["wild:0.50", "calm"], **FEW)
    wild, calm = find("wild"), find("calm")
    said = [f"wild@{wild.sha256[:12]}:0.5", f"calm@{calm.sha256[:12]}:1"]
    assert made.parameters.lora == said  # type: ignore[attr-defined]
    assert made[0].metadata["parameters"]["lora"] == said
    assert resolved_lora(said, find("emoji-64")) == said, "and resolving it again changes nothing"
    again = generate("a dog", **{**FEW, "lora": said})
    assert (again[0].value == made[0].value).all()
    with pytest.raises(InvalidInput, match=f"wild@{wild.sha256[:12]}, which is what is installed"):
        generate("a dog", lora=["wild@0123456789ab:0.5"], **FEW)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (["nobody"], "an adapter for model emoji-64: broken, calm, .*wild"),
        (["elsewhere:1"], "an adapter for model emoji-64"),
        (["emoji-64"], "an adapter for model emoji-64"),
        (["wild:2.1"], "a weight of -2 to 2"),
        (["wild:-2.1"], "a weight of -2 to 2"),
        (["wild:nan"], "a weight of -2 to 2"),
        (["wild:"], "NAME:WEIGHT"),
        (["wild:1:1"], "NAME:WEIGHT"),
        ([""], "NAME:WEIGHT"),
        (["wild"] * 5, "at most 4"),
        (["../wild:1"], "an adapter for model emoji-64"),
    ],
)
def test_what_is_no_adapter_is_refused_in_a_line(
    installed: Path, generate: perrin.Generator, lora: list[str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        generate("a dog", lora=lora, **FEW)
    assert "\n" not in caught.value.message


def test_files_are_read_once_and_checked(installed: Path) -> None:
    runtime = ImageRuntime.load(find("emoji-64"), "cpu")
    beside: Beside = runtime._beside
    runtime.start(asked(lora=["wild"]))
    held = dict(beside._kept)
    runtime.start(asked(lora=["wild:0.3"]))
    assert beside._kept == held
    with pytest.raises(ModelError, match="broken: nothing is no layer of model emoji-64"):
        runtime.start(asked(lora=["broken"]))


def test_an_adapter_is_no_model_to_draw_with(installed: Path) -> None:
    with pytest.raises(InvalidInput, match="an adapter of emoji-64, for lora"):
        perrin.load("image", model="wild")("a dog")
    schema = modality.schema()["properties"]["model"]["choices"]
    assert "emoji-64" in schema
    assert not {"wild", "calm"} & set(schema)


def test_the_recipe_of_a_style_makes_an_adapter_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    discs, (y, x) = np.zeros((64, 64, 64, 4), np.uint8), np.mgrid[:64, :64]
    for number, disc in enumerate(discs):
        disc[(x - 32) ** 2 + (y - 20 - number % 24) ** 2 < 200] = [200, 4 * number, 40, 255]
    records = [
        Record(id=f"noto/disc-{n}" + "@red" * (n % 9 == 0), source="noto", style="noto", licence="", name="disc",
               captions=("disc",), group="disc", colour="red", recoloured=n % 9 == 0, mirror_ok=True, weight=1.0)
        for n in range(64)
    ]  # fmt: skip
    write_pack(tmp_path / "data" / "image" / "pack", discs, records, {"pictures": 64}, "")
    pictures = load_pictures(tmp_path / "data" / "image", lambda *a: None, data={"pencil": True})
    assert [record.id for record in pictures.records] == [record.id for record in records if not record.recoloured]
    line = np.array(PAPER) - INK
    along = (pictures.pixels[..., :3] - np.array(INK)) @ line / (line @ line)
    assert np.abs(INK + along[..., None] * line - pictures.pixels[..., :3]).max() < 2, "between ink and paper"
    recipe = read_recipe("image/emoji_pencil", ["name=tiny-pencil", "diffusion.batch=4", "diffusion.options.samples=1"])
    made = train(recipe, dry_run=2, out=tmp_path / "run", settings=Settings(home=tmp_path))
    monkeypatch.setenv("PERRIN_MODELS", str(made.parent))
    card = find("tiny-pencil")
    assert (card.base, list(card.files)) == ("emoji-64", ["adapter.safetensors"])
    assert [row.licence for row in card.attributions] == ["Apache-2.0", "MIT", "MIT"]
    result = perrin.load("image", device="cpu")("a dog", lora=["tiny-pencil:0.5"], **FEW)
    assert result[0].metadata["parameters"]["lora"][0].startswith("tiny-pencil@")
