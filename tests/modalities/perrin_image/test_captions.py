"""The judge of captions: what it is asked, what it never sees, that it learns, and its recipe end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perrin.errors import ModelError
from perrin.models import find, verify
from perrin.models.card import read_card
from perrin.pictures import to_tensor
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin_image.data import Pack, Record
from perrin_image.data.pack import write_pack
from perrin_image.metrics.captions import CaptionNetwork, bare, candidates, load_judge, ranks, sentences, unseen
from perrin_image.metrics.features import Features
from perrin_image.metrics.known import autoencoder, features_of, through, worn_features_of
from perrin_image.training.captions import CaptionsTask
from perrin_image.training.dataset import held_out

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "yellow": (240, 220, 30)}
SHAPES = ("disc", "square", "bar")
OVERRIDES = [
    "name=tiny-captions",
    "judge.batch=16",
    "judge.options.network={hidden: 64}",
    "judge.options.others=24",
]


def _picture(colour: str, shape: str, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(number)
    pixels, (y, x), (v, u) = np.zeros((64, 64, 4), np.uint8), np.mgrid[:64, :64], rng.uniform(26, 38, 2)
    inside = {
        "disc": (x - u) ** 2 + (y - v) ** 2 < 300,
        "square": np.maximum(abs(x - u), abs(y - v)) < 16,
        "bar": (abs(x - u) < 24) & (abs(y - v) < 6),
    }[shape]
    pixels[inside] = [*COLOURS[colour], 255]
    return pixels


def _record(number: int) -> Record:
    colour, shape = list(COLOURS)[number % 4], SHAPES[number // 4 % 3]
    return Record(
        id=f"noto/{shape}-{number}", source="noto", style="noto", licence="Apache-2.0", name=shape,
        captions=(f"{colour} {shape}", f"a {colour} {shape}"), group=shape, colour=colour, recoloured=False,
        mirror_ok=True, weight=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    records = [_record(number) for number in range(144)]
    pictures = np.stack([_picture(r.colour or "", r.name, n) for n, r in enumerate(records)])
    write_pack(home / "data" / "image" / "pack", pictures, records, {"pictures": 144}, "144 pictures")
    return home


def _task(home: Path, out: Path) -> CaptionsTask:
    options = {"network": {"hidden": 64}, "others": 24}
    task = CaptionsTask(options, {}, {"data": home / "data", "out": out, "model": out})
    task.prepare(lambda *a: None)
    return task


def test_what_a_model_is_not_trained_on_the_judge_is_not_either() -> None:
    records = [_record(number) for number in range(3000)]
    away = [r for r in records if unseen(r)]
    assert 0.06 < len(away) / len(records) < 0.1
    assert all(unseen(r) for r in records if held_out(r))
    assert sum(map(held_out, records)) < len(away)


def test_the_captions_asked_for_differ_and_the_freshest_come_first() -> None:
    records = [_record(number) for number in range(3000)]
    chosen = candidates(records)
    said = [bare(records[i].captions[0]) for i in chosen]
    assert sorted(said) == sorted(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    assert all(unseen(records[i]) for i in chosen)
    fresh = [held_out(records[i]) for i in chosen]
    assert fresh == sorted(fresh, reverse=True)
    assert candidates(records, 5) == chosen[:5]
    assert (bare("a red apple"), bare("an"), bare("the sun")) == ("red apple", "an", "sun")


def test_ranks_count_what_is_better() -> None:
    network = CaptionNetwork(12, 16).eval()
    said = torch.eye(384)[:8]
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        order = (network(x) @ network.said(said).T).argsort(dim=1, descending=True)
    for place, wanted in ((0, (1.0, 1.0)), (4, (0.0, 1.0)), (5, (0.0, 0.0))):
        assert ranks(network, x, said, order[:, place].tolist()) == wanted


def test_a_batch_has_the_pictures_own_captions_and_wrong_ones(home: Path, tmp_path: Path) -> None:
    task = _task(home, tmp_path)
    batch = task.batch(32, np.random.default_rng(0))
    assert batch.features.shape == (32, 320)
    assert batch.sentences.shape == (56, 384)
    assert not batch.wrong.diagonal().any(), "one's own caption is not wrong"
    assert batch.wrong.any(1).all()
    assert not set(task.train) & {i for i, record in enumerate(task.pack.records) if unseen(record)}
    again = task.batch(32, np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    text = task.pack.records[int(task.train[0])].captions[0]
    assert torch.allclose(torch.from_numpy(task.sentences[task.number[text]]), sentences([text])[0], atol=2e-3)


def test_features_of_the_data_are_computed_once_as_they_are_and_worn(tmp_path: Path) -> None:
    records = tuple(_record(number) for number in range(5))
    pictures = np.stack([_picture(r.colour or "", r.name, n) for n, r in enumerate(records)])
    pack, card, told = Pack(pictures, records), find("emoji-64"), []
    plain = features_of(pack, tmp_path, lambda *a: None)
    worn, pixels = worn_features_of(pack, tmp_path, card, lambda *a: told.append(a))
    x, features = to_tensor(pictures), Features()
    assert torch.equal(plain, features.of(x))
    assert torch.equal(worn, features.of(through(autoencoder(card), x)))
    assert pixels.shape == (5, 768)
    assert told
    again = worn_features_of(pack, tmp_path, card, lambda *a: pytest.fail("computed twice"))
    assert torch.equal(again[0], worn)


def test_the_recipe_leaves_a_judge_that_has_learnt(home: Path) -> None:
    out, settings = home / "models" / "run", Settings(home=home)
    train(read_recipe("image/captions", OVERRIDES), dry_run=3, out=out, settings=settings)
    made = train(read_recipe("image/captions", OVERRIDES), dry_run=60, out=out, settings=settings)
    card = read_card(made)
    verify(card)
    assert list(card.files) == ["judge.safetensors"]
    judge = load_judge(card)
    records = [_record(number) for number in range(144)]
    asked = candidates(records)
    x = to_tensor(np.stack([_picture(records[i].colour or "", records[i].name, 1000 + i) for i in asked]))
    found = ranks(judge, Features().of(x), sentences([records[i].captions[0] for i in asked]))
    assert found.one > 2 / len(asked), "chance is one of all"
    lines = [json.loads(line) for line in (out / "judge" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["evaluation"]["captions"] == len(asked)
    with pytest.raises(ModelError, match="wanted a judge of captions"):
        load_judge(find("emoji-64"))
    (made / "judge.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError):
        load_judge(card)
