"""The project's own recipe, end to end on a few pictures: two networks, sample grids, a card, and a model that runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perrin.engine import Engine, Finished, Request
from perrin.errors import InvalidInput
from perrin.models import find, verify
from perrin.models.card import read_card
from perrin.models.weights import load_network
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin.training.adapters import load_adapter, merge
from perrin.training.inversion import load_word
from perrin_image.data import Record
from perrin_image.data.pack import write_pack
from perrin_image.training.dataset import load_pictures, prompts

OVERRIDES = [
    "name=tiny",
    "autoencoder.batch=4",
    "diffusion.batch=4",
    "diffusion.compile=false",
    "diffusion.options.network.depth=1",
]


def _pack(home: Path) -> None:
    """Discs of several colours; the recoloured red rocket is one that must never be trained on."""
    rng = np.random.default_rng(0)
    pictures, records = [], []
    for number in range(64):
        pixels = np.zeros((64, 64, 4), np.uint8)
        y, x = np.mgrid[:64, :64]
        disc = (x - 32) ** 2 + (y - 32) ** 2 < rng.integers(150, 700)
        pixels[disc] = [*rng.integers(0, 255, 3), 255]
        pictures.append(pixels)
        rocket = number % 8 == 0
        records.append(
            Record(
                id=f"noto/disc-{number}" + ("@red" if rocket else ""),
                source="noto",
                style="noto",
                licence="Apache-2.0",
                name="rocket" if rocket else "disc",
                captions=("red rocket", "a red rocket") if rocket else ("disc", "a disc"),
                group="rocket" if rocket else "disc",
                colour="red" if rocket else None,
                recoloured=rocket,
                mirror_ok=True,
                weight=1.0,
            )
        )
    write_pack(home / "data" / "image" / "pack", np.stack(pictures), records, {"pictures": 64}, "64 pictures")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The home and the finished model of a run that was stopped once and gone on with."""
    home = tmp_path_factory.mktemp("home")
    _pack(home)
    settings, recipe = Settings(home=home), read_recipe("image/emoji", OVERRIDES)
    out = home / "models" / "run"
    train(recipe, dry_run=1, out=out, settings=settings)
    return home, train(recipe, dry_run=3, out=out, settings=settings)


def test_recombinations_of_the_test_prompts_are_never_trained_on(trained: tuple[Path, Path]) -> None:
    home, _ = trained
    pictures = load_pictures(home / "data" / "image", lambda *a: None)
    assert "red rocket" in prompts("recombined")
    assert len(prompts()) == 64
    assert len(pictures.train) > 0
    assert not any(pictures.records[i].recoloured for i in pictures.train)
    assert not set(pictures.train) & set(pictures.held_out)


def test_it_leaves_grids_a_log_and_a_card(trained: tuple[Path, Path]) -> None:
    home, model = trained
    run = home / "models" / "run"
    for stage in ("autoencoder", "diffusion"):
        lines = [json.loads(line) for line in (run / stage / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == [1, 3]
        with Image.open(run / stage / "samples-0000003.png") as grid:
            assert grid.size == (526, 526)
    card = find("tiny", settings=Settings(models=str(run)))
    verify(card)
    assert card.folder == model
    assert card.metrics["diffusion"]["images"] == 12
    assert card.data["pictures"] == 56
    assert {a.licence for a in card.attributions} >= {"CC-BY-4.0", "Apache-2.0", "MIT"}


def test_the_trained_model_runs(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home, _ = trained
    monkeypatch.setenv("PERRIN_MODELS", str(home / "models" / "run"))
    engine = Engine()
    engine.admit(Request("x", "image", {"prompt": "disc", "seed": 1, "steps": 2, "model": "tiny"}, "png"))
    events = []
    while engine.requests:
        events += engine.tick()
    assert isinstance(events[-1], Finished), events[-1]
    assert events[-1].files[0].metadata["model"] == "tiny"


TUNING = """
name: tuned
modality: image
start: emoji-64
stages:
  - name: diffusion
    task: perrin_image.training.diffusion:DiffusionTask
    options:
      autoencoder: {channels: 4, latent: 16, widths: [40, 64, 88], blocks: 1, patch: 2}
      network: {channels: 16, width: 240, depth: 6, heads: 6, hidden: 416, patch: 1, context: 384}
      samples: 4
    steps: 2
    batch: 4
    learning_rate: 1.0e-3
    ema: 0.0
    %s
card: {title: Tuned, licence: Apache-2.0}
"""
WAYS = {
    "adapter": "adapter: {rank: 4, layers: qkv}",
    "word": "inversion: {word: sprocket, vectors: 2, like: rocket}",
    "elastic": "elastic: {strength: 1.0, batches: 2}",
    "whole": "warmup: 1",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_shipped_model_is_tuned(way: str, trained: tuple[Path, Path], tmp_path: Path) -> None:
    home, _ = trained
    (tmp_path / "tuning.yaml").write_text(TUNING % WAYS[way])
    made = train(read_recipe(str(tmp_path / "tuning.yaml")), out=tmp_path / "run", settings=Settings(home=home))
    card, base = read_card(made), find("emoji-64")
    verify(card)
    lines = (tmp_path / "run" / "diffusion" / "log.jsonl").read_text()
    if way == "adapter":
        assert card.base == "emoji-64"
        adapter = load_adapter(made / "adapter.safetensors")
        assert set(adapter.layers) == {f"blocks.{i}.qkv" for i in range(6)}
        assert any(up.any() for _, up in adapter.layers.values())
        merge(load_network(base, "transformer"), adapter)
    elif way == "word":
        assert (card.base, load_word(made / "word.safetensors")[0]) == ("emoji-64", "sprocket")
        assert list(card.files) == ["word.safetensors"]
    else:
        assert set(card.files) == {"autoencoder.safetensors", "transformer.safetensors"}
        ours, theirs = (load_network(one, "transformer").state_dict() for one in (card, base))
        far = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
        assert 0 < far < 0.05, "it began where the shipped model is"
    if way == "elastic":
        assert "old_loss" in lines
        assert "penalty" in lines
    with pytest.raises(InvalidInput, match="say which with start"):
        read_recipe(
            str(tmp_path / "tuning.yaml"), ["start=''"] if way != "whole" else ["start=''", "diffusion.adapter={}"]
        )


def test_somebodys_own_pictures_are_trained_on(trained: tuple[Path, Path], tmp_path: Path) -> None:
    home, _ = trained
    own = tmp_path / "own"
    own.mkdir()
    rng = np.random.default_rng(3)
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), np.uint8))
        coarse.resize((100, 70)).save(own / f"my-thing-{number}.png")
    (own / "my-thing-3.txt").write_text("a thing of mine\n")
    (own / "broken.png").write_bytes(b"x")
    (tmp_path / "tuning.yaml").write_text(TUNING % WAYS["adapter"] + f"data: {{folder: {own}, style: flat}}\n")
    made = train(read_recipe(str(tmp_path / "tuning.yaml")), out=tmp_path / "run", settings=Settings(home=home))
    (report,) = (home / "data" / "image").glob("own-*/report.txt")
    assert report.read_text().startswith("13 read, 12 kept\n  1 dropped, no picture that can be read")
    card = read_card(made)
    assert card.data["pictures"] == 12
    assert card.data["styles"] == {"flat": 12}
    assert not card.attributions
