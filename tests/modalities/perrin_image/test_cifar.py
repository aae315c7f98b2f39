"""The CIFAR-10 benchmark: its data, and its recipe for 20 steps, on a stand-in with a colour for each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perrin.errors import InvalidInput, PerrinError
from perrin.models import verify
from perrin.models.card import read_card
from perrin.models.weights import load_network
from perrin.settings import Settings
from perrin.training import read_recipe, train
from perrin_image.data import cifar
from perrin_image.data.cifar import CLASSES, Cifar, open_cifar, prepare_cifar, write_cifar
from perrin_image.training.cifar import CifarTask, draw, to_colours

OVERRIDES = ["name=tiny-cifar", "unet.batch=16", "unet.options.network={widths: [16, 16], blocks: 1, attention: [1]}",
             "unet.options.steps=3", "unet.warmup=1", "unet.learning_rate=3.0e-3", "unet.ema=0.0"]  # fmt: skip


def _data(count: int, seed: int) -> tuple[Any, Any]:
    """A picture's left half has the colour of its class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)
    pictures = rng.integers(0, 40, (count, 32, 32, 3)).astype(np.uint8)
    pictures[:, :, :16] += (labels * 20)[:, None, None, None].astype(np.uint8)
    return pictures, labels


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_cifar(home / "data" / "image" / "cifar-10", Cifar(*_data(100, 0), *_data(40, 1)))
    return home


def test_the_package_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "unpacked" / cifar.SOURCE.key / "package"
    package.mkdir(parents=True)
    parts = [_data(3, seed) for seed in range(6)]
    for name, (pictures, _) in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], parts, strict=True):
        Image.fromarray(pictures.reshape(3, 1024, 3)).save(package / f"{name}.png")
    for name, some in (("train", parts[:5]), ("test", parts[5:])):
        (package / f"{name}_lables.json").write_text(json.dumps(np.concatenate([p[1] for p in some]).tolist()))
    monkeypatch.setattr(cifar, "unpacked", lambda source, folder: folder / "unpacked" / source.key)
    data = open_cifar(prepare_cifar(tmp_path, lambda *a: None))
    assert np.array_equal(data.pictures[3:6], parts[1][0])
    assert np.array_equal(data.labels[12:], parts[4][1])
    assert np.array_equal(data.test_pictures, parts[5][0])
    assert len(data.test_labels) == 3


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{cifar.SOURCE.key}.tgz").write_bytes(b"another file")
    with pytest.raises(PerrinError, match="the recipe wants 141f061f"):
        prepare_cifar(tmp_path, lambda *a: None)


def test_pictures_and_labels_agree_or_are_refused(tmp_path: Path) -> None:
    pictures, labels = _data(5, 0)
    for wrong in (Cifar(pictures, labels[:4], pictures, labels), Cifar(pictures, labels, pictures, labels + 10)):
        with pytest.raises(InvalidInput, match="pictures"):
            write_cifar(tmp_path, wrong)
    with pytest.raises(InvalidInput, match="run prepare_cifar"):
        open_cifar(tmp_path)


def test_a_batch_goes_by_the_labels(home: Path, tmp_path: Path) -> None:
    options = {"network": {"widths": [16, 16], "blocks": 1, "attention": []}, "mirror": 0.0, "dropout": 0.25}
    task = CifarTask(options, {}, {"data": home / "data", "out": tmp_path})
    task.prepare(lambda *a: None)
    batch = task.batch(400, np.random.default_rng(0))
    known = batch.label < 10
    left = (batch.pictures[..., :16].mean((1, 2, 3)) + 1) * 127.5
    assert torch.equal(((left[known] - 20) / 20).round().long(), batch.label[known])
    assert 0.15 < float((~known).float().mean()) < 0.35
    assert to_colours(np.array([[[[0, 255, 51]]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_the_recipe_runs_for_20_steps(home: Path, tmp_path: Path) -> None:
    made = train(read_recipe("image/cifar10", OVERRIDES), dry_run=20, out=tmp_path, settings=Settings(home=home))
    card = read_card(made)
    verify(card)
    assert card.metrics["unet"]["images"] == 320
    assert card.conditioners["class"] == list(CLASSES)
    with Image.open(tmp_path / "unet" / "samples-0000020.png") as grid:
        assert grid.size == (8 * 34 - 2, 10 * 34 - 2)
    recipe = read_recipe("image/cifar10", OVERRIDES)
    task = CifarTask(recipe.stages[0].options, {}, {"data": home / "data"})
    network, labels = load_network(card, "unet"), torch.tensor([3, 10])
    both = draw(network, task.objective, labels, seed=5, steps=3)
    assert both.shape == (2, 3, 32, 32)
    assert torch.allclose(both[1:], draw(network, task.objective, labels[1:], seed=6, steps=3), atol=1e-4)
    guided = draw(network, task.objective, labels, seed=5, steps=3, guidance=9.0)
    assert torch.allclose(guided[1], both[1], atol=1e-4), "any class has nothing to be guided to"
    assert not torch.allclose(guided[0], both[0], atol=1e-4)
