"""The trainer's laws: a killed run resumes to the same bits, averages have their width, recipes are checked first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from perrin.errors import Conflict, InvalidInput, NotFound, SamplingError
from perrin.training.ema import Averages, gamma_of_width
from perrin.training.loop import CHECKPOINT, learning_rate, run_stage
from perrin.training.recipe import Recipe, Stage, read_recipe

STAGE = Stage(
    name="line", task="x:y", steps=60, batch=8, warmup=5, precision="no", evaluate_every=30, save_seconds=0.001
)


class Line:
    """Learns y = 3x - 1."""

    def __init__(self, delay: float = 0.0) -> None:
        torch.manual_seed(3)
        self.network: nn.Module = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.delay = delay

    def batch(self, size: int, generator: np.random.Generator) -> torch.Tensor:
        time.sleep(self.delay)
        return torch.from_numpy(generator.standard_normal((size, 1))).float()

    def loss(self, network, batch, generator):  # type: ignore[no-untyped-def]
        noise = 0.01 * torch.randn(batch.shape, generator=generator)
        return (network(batch) - (3 * batch - 1 + noise)).square().mean(), {}

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        return {"bias": float(network(torch.zeros(1, 1)))}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / CHECKPOINT)


def test_interrupted_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run_stage(STAGE, Line(), whole, 1, lambda *a: None)
    for stop in (7, 8, 41, 60):
        run_stage(STAGE, Line(), parts, 1, lambda *a: None, steps=stop)
    mine, theirs = _weights(parts), _weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_killed_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    """kill -9 in mid-training, twice, at different moments."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; import test_training as t\n"
        "t.run_stage(t.STAGE, t.Line(0.02), Path(sys.argv[2]), 1, lambda *a: None)\n"
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run_stage(STAGE, Line(), whole, 1, lambda *a: None)
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(parts)]
    for kills in range(2):
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        before = (parts / CHECKPOINT).stat().st_mtime_ns if kills else 0
        while time.monotonic() < deadline:
            if (parts / CHECKPOINT).exists() and (parts / CHECKPOINT).stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    mine, theirs = _weights(parts), _weights(whole)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_it_learns_and_logs(tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"steps": 400, "learning_rate": 0.02, "evaluate_every": 200})
    trained = run_stage(stage, Line(), tmp_path, 1, lambda *a: None)
    assert abs(float(trained.network(torch.zeros(1, 1))) + 1) < 0.1
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 10
    assert [line["step"] for line in lines if "evaluation" in line] == [200, 400]


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    run_stage(STAGE, Line(), tmp_path, 1, lambda *a: None, steps=5)
    other = Line()
    other.network = nn.Linear(2, 2)
    with pytest.raises(Conflict, match="another network"):
        run_stage(STAGE, other, tmp_path, 1, lambda *a: None)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = Line()
    task.loss = lambda network, batch, generator: (network(batch).sum() * float("nan"), {})  # type: ignore[method-assign]
    with pytest.raises(SamplingError, match="the loss is nan"):
        run_stage(STAGE, task, tmp_path, 1, lambda *a: None)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2])
def test_average_has_its_width(width: float) -> None:
    """Fed with its own step number, the average's weights have the relative deviation asked for (EDM2, eq. 123)."""
    steps = 4000
    gamma = gamma_of_width(width)
    times = (np.arange(1, steps + 1) - 0.5) / steps
    weights = times**gamma / (times**gamma).sum()
    mean = (weights * times).sum()
    assert abs(np.sqrt((weights * (times - mean) ** 2).sum()) - width) < 0.002
    network = nn.Linear(1, 1, bias=False)
    ema = Averages(network, width)
    for step in range(1, steps + 1):
        with torch.no_grad():
            network.weight.fill_(step / steps)
        ema.update(network, step)
    assert abs(float(ema.network.weight) - mean) < 0.005


def test_rates() -> None:
    stage = STAGE.model_copy(update={"steps": 100, "warmup": 10, "decay": 0.5, "learning_rate": 1.0})
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9:50] == [1.0] * 41
    assert np.allclose(np.diff(rates[50:]), -0.02)


def test_recipes_are_checked(tmp_path: Path) -> None:
    recipe = read_recipe("image/emoji", ["diffusion.batch=3", "diffusion.options.text_dropout=0.5", "seed=9"])
    assert isinstance(recipe, Recipe)
    assert recipe.seed == 9
    assert recipe.stages[1].batch == 3
    assert recipe.stages[1].options["text_dropout"] == 0.5
    with pytest.raises(InvalidInput, match="one of image/emoji"):
        read_recipe("image/nothing")
    with pytest.raises(InvalidInput, match="modality"):
        read_recipe("smell/roses")
    with pytest.raises(InvalidInput, match="batch"):
        read_recipe("image/emoji", ["diffusion.batch=0"])
    with pytest.raises(InvalidInput, match="PATH=VALUE"):
        read_recipe("image/emoji", ["batch"])
    with pytest.raises(NotFound, match="no recipe at"):
        read_recipe(str(tmp_path / "mine.yaml"))
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(InvalidInput, match="valid YAML"):
        read_recipe(str(tmp_path / "broken.yaml"))
