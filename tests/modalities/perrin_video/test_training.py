"""The two tasks of the recipe, on four pictures: they learn, a batch is what it says, what is published loads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from perrin.models.card import ModelCard, write_card
from perrin.models.weights import load_network
from perrin.training.recipe import read_recipe
from perrin_video.clips import FRAMES
from perrin_video.network import MotionLayers
from perrin_video.training.motion import MotionTask, ReaderTask

SMALL = {"inner": 40, "hidden": 32}


def pictures(folder: Path, progress: Any, emphasis: Any, data: Any) -> Any:
    """What `data.pictures` names: four boxes."""
    pixels = np.zeros((4, 64, 64, 4), np.uint8)
    for number, colour in enumerate([(200, 30, 30), (30, 30, 200), (30, 160, 30), (240, 200, 0)]):
        pixels[number, 2:62, 8 : 40 + 6 * number] = (*colour, 255)
    names = ("red box", "blue box", "green box", "yellow box")
    records = [SimpleNamespace(captions=(name,), id=name, style="noto") for name in names]
    return SimpleNamespace(
        pixels=pixels, records=records, train=np.arange(3), held_out=np.array([3]), weights=np.full(3, 1 / 3),
        attributions=(("boxes", "1", "CC0-1.0", "nobody"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("run")
    made = {name: root / name for name in ("data", "out", "model")}
    for path in made.values():
        path.mkdir()
    return made


DATA = {"pictures": f"{__name__}:pictures"}


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, DATA["pictures"].partition(":")[0], SimpleNamespace(pictures=pictures))  # type: ignore[misc]


def quiet(done: int, total: int, label: str) -> None:
    pass


def test_the_recipe_is_one(folders: dict[str, Path]) -> None:
    recipe = read_recipe("video/motion")
    assert [stage.name for stage in recipe.stages] == ["reader", "motion"]
    assert recipe.name == "emoji-motion"


def test_the_reader_learns_and_the_next_stage_takes_it_over(folders: dict[str, Path]) -> None:
    task = ReaderTask({"captions": 40}, DATA, folders)
    task.prepare(quiet)
    generator, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(task.network.parameters(), 2e-3)
    losses = []
    for step in range(40):
        loss, _ = task.loss(task.network, task.batch(24, np.random.default_rng(step)), generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    task.publish(task.network, folders["model"])
    assert "inner.weight" in load_file(folders["model"] / "reader.safetensors")


def test_the_layers_learn_and_are_published(folders: dict[str, Path], tmp_path: Path) -> None:
    options = {"clips": 6, "frames": 3, "layers": SMALL, "samples": 2, "given": 0.5}
    task = MotionTask(options, DATA, folders)
    task.prepare(quiet)
    assert task.clips.latents.shape == (6, 1 + FRAMES, 16, 8, 8)
    batch = task.batch(4, np.random.default_rng(0))
    assert batch.latents.shape == (4, 16, 3, 8, 8)
    assert batch.portrait.shape == (4, 16, 1, 8, 8)
    again = task.batch(4, np.random.default_rng(0))
    assert torch.equal(batch.latents, again.latents)
    assert torch.equal(batch.kept, again.kept)
    trained = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    frozen = [parameter for name, parameter in task.network.named_parameters() if name.startswith("image.")]
    assert not any(parameter.requires_grad for parameter in frozen)
    optimizer, losses = torch.optim.Adam(trained, 3e-3), []
    for _ in range(8):
        loss, _ = task.loss(task.network, batch, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    fields = task.publish(task.network, tmp_path)
    assert fields["image"] == "emoji-64"
    assert fields["attributions"] == [{"source": "boxes 1", "licence": "CC0-1.0", "line": "nobody"}]
    card = {"name": "mine", "modality": "video", "title": "Mine", "licence": "CC0-1.0", **fields}
    written = write_card(ModelCard.model_validate(card), tmp_path)
    loaded = load_network(written, "motion", kinds={"motion": MotionLayers})
    assert sum(p.numel() for p in loaded.parameters()) < 2_000_000
