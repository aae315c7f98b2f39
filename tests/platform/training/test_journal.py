"""What a run writes down, and when it warns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from perrin.training.journal import Journal
from perrin.training.watch import diversity, memorised, nearest


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_diversity_is_one_for_the_data_and_falls_with_the_samples() -> None:
    data = draw(500, 4, 8)
    assert diversity(draw(100, 4, 8, seed=1), data) == pytest.approx(1.0, abs=0.05)
    assert diversity(draw(1, 4, 8, seed=1) + 0.1 * draw(100, 4, 8, seed=2), data) == pytest.approx(0.1, abs=0.02)


def test_copies_are_counted() -> None:
    data = draw(600, 16)
    fresh, copies = draw(60, 16, seed=1), data[100:120] + 0.05 * draw(20, 16, seed=2)
    assert memorised(fresh, data) == 0.0
    assert memorised(torch.cat([fresh, copies]), data) == 0.25
    assert nearest(copies, data)[1].tolist() == [*range(100, 120)]
    distance, index = nearest(data, data, itself=True)
    assert (distance > 0).all()
    assert (index != torch.arange(600)).all()


def task(**measured: float) -> Any:
    def evaluate(network: Any, path: Path) -> dict[str, float]:
        Image.new("RGB", (8, 8), "red").save(path)
        return measured

    return SimpleNamespace(evaluate=evaluate)


def test_a_run_is_written_down_line_by_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert "items_per_second" not in journal.numbers(20, 8, {"loss": 2.0})
        assert journal.numbers(40, 8, {"loss": 1.0})["items_per_second"] > 0
        assert journal.evaluation(40, task(quality=0.5), None) == {"quality": 0.5}  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.get("loss") for line in lines] == [2.0, 1.0, None]
    assert [line.get("items") for line in lines] == [160, 320, None]
    assert lines[2]["evaluation"] == {"quality": 0.5}
    assert (tmp_path / "samples-0000040.png").exists()
    board = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"loss" in board
    assert b"samples" in board


@pytest.mark.parametrize(("measured", "says"), [({"diversity": 0.2}, "collapse"), ({"memorised": 0.5}, "50%")])
def test_collapse_and_memorisation_are_warned_of(measured: dict[str, float], says: str, tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.evaluation(100, task(**measured), None)  # type: ignore[arg-type]
        with pytest.warns(RuntimeWarning, match=says):
            journal.evaluation(500, task(**measured), None)  # type: ignore[arg-type]
    assert says in (tmp_path / "log.jsonl").read_text()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with Journal(None) as journal:
        journal.numbers(20, 8, {"loss": 2.0})
        assert journal.evaluation(20, task(quality=1.0), None) == {}  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
