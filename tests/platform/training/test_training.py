"""The trainer's laws: a killed run resumes to the same bits, averages have their width, recipes are checked first."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from perrin.diffusion.state import Fields
from perrin.errors import Conflict, InvalidInput, NotFound, SamplingError
from perrin.training import loop
from perrin.training.ema import Averages, gamma_of_width
from perrin.training.loop import CHECKPOINT, learning_rate, placed, run_stage
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


CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_training as t
from perrin.training.loop import leave
delay, changes = float(sys.argv[3]), json.loads(sys.argv[4])
t.run_stage(t.STAGE.model_copy(update=changes), t.Line(delay), Path(sys.argv[2]), 1, lambda *a: None)
leave()
names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
assert not any("gloo" in name for name in names), "a thread that outlives the interpreter may abort the process"
"""


FORKS = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import accelerate, torch.utils.tensorboard
import test_training as t
for line in sys.stdin:
    delay, changes = json.loads(line)
    pid = os.fork()
    if pid == 0:
        t.run_stage(t.STAGE.model_copy(update=changes), t.Line(delay), Path(sys.argv[2]), 1, lambda *a: None)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Runs of which each is a process of its own and begins at once: what takes longest, the imports, is done before."""


def test_the_end_of_a_run_is_among_the_snapshots_wherever_it_stops(tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"ema_snapshots": True})
    run_stage(stage, Line(), tmp_path, 1, lambda *a: None, steps=41)
    assert {path.name[:8] for path in (tmp_path / "averages").glob("*.safetensors")} == {"00000030", "00000041"}


class Pair(NamedTuple):
    state: Fields
    rest: dict[str, object]


def test_a_batch_goes_to_the_device_whole() -> None:
    one = torch.zeros(2, 3)
    state = Fields({"x": one}, mask=torch.ones(2, 3, dtype=torch.bool))
    moved = placed(Pair(state, {"tokens": [one, one], "names": ("a", "b"), "none": None}), torch.device("meta"))
    assert isinstance(moved, Pair)
    assert moved.state.mask is not None
    tokens = moved.rest["tokens"]
    assert isinstance(tokens, list)
    assert {x.device.type for x in (moved.state["x"], moved.state.mask, *tokens)} == {"meta"}
    assert moved.rest["names"] == ("a", "b")
    assert moved.rest["none"] is None
    assert one.device.type == "cpu"


def _command(out: Path, delay: float = 0.0, **changes: object) -> list[str]:
    return [sys.executable, "-c", CODE, str(Path(__file__).parent), str(out), str(delay), json.dumps(changes)]


def test_killed_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    """kill -9 in mid-training, ten times, at random moments."""
    whole, parts, moments = tmp_path / "whole", tmp_path / "parts", random.Random(5)
    whole.mkdir()
    parts.mkdir()
    changes: dict[str, object] = {"steps": 150, "ema_snapshots": True}
    at_the_end: dict[str, object] = {**changes, "save_seconds": 600}
    run_stage(STAGE.model_copy(update=at_the_end), Line(), whole, 1, lambda *a: None)
    reached = []
    command = [sys.executable, "-c", FORKS, str(Path(__file__).parent), str(parts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as forks:
        assert forks.stdin is not None
        assert forks.stdout is not None
        for _ in range(10):
            before = _written(parts)
            forks.stdin.write(json.dumps([0.05, changes]) + "\n")
            pid, deadline = int(forks.stdout.readline()), time.monotonic() + 120
            while _written(parts) == before:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.1))
            os.kill(pid, signal.SIGKILL)
            assert int(forks.stdout.readline()) == -signal.SIGKILL
            with safe_open(parts / CHECKPOINT, "pt") as stream:
                reached.append(int(stream.metadata()["step"]))
    assert reached == sorted(set(reached)), "each went on from the one before"
    assert reached[-1] < 150
    subprocess.run(_command(parts, **at_the_end), check=True)
    mine, theirs = _weights(parts), _weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def _written(out: Path) -> int:
    return (out / CHECKPOINT).stat().st_mtime_ns if (out / CHECKPOINT).exists() else 0


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_are_one_with_twice_the_batch(shard: bool, tmp_path: Path) -> None:
    """Each of two processes computes half of every batch; one process computes both halves.

    They save about every second step by the clock, which must not make them save at different steps.
    """
    from servers import hold_port  # not above: the processes below import this module, and have no servers

    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    changes: dict[str, object] = {"steps": 40, "evaluate_every": 100, "save_seconds": 0.08}
    run_stage(STAGE.model_copy(update={**changes, "accumulate": 2}), Line(), one, 1, lambda *a: None)

    def both(delay: float, port: str) -> list[subprocess.Popen[bytes]]:
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        return [
            subprocess.Popen(
                _command(two, delay, **changes, shard=shard),
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]

    with hold_port() as held, hold_port() as again:
        first = both(0.05, str(held.getsockname()[1]))
        deadline = time.monotonic() + 120
        while not _written(two):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        for process in first:  # killed on the way, both of them
            process.kill()
            process.wait()
        assert [process.wait(120) for process in both(0.0, str(again.getsockname()[1]))] == [0, 0]
    mine, theirs = _weights(two), _weights(one)
    assert mine.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-6, rtol=1e-4)


def test_a_time_budget_ends_the_run_and_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def noted(*values: Any) -> float:
        rates.append(learning_rate(*values))
        return rates[-1]

    monkeypatch.setattr(loop, "learning_rate", noted)
    stage = STAGE.model_copy(update={"steps": 100_000, "minutes": 0.02, "decay": 0.5, "save_seconds": 0.3})
    began = time.monotonic()
    trained = run_stage(stage, Line(0.002), tmp_path, 1, lambda *a: None)
    assert 1.0 < time.monotonic() - began < 30, "it has a hundred thousand steps"
    assert 5 < trained.steps < 100_000
    assert max(rates) == stage.learning_rate
    assert rates[-1] < 0.5 * stage.learning_rate
    with safe_open(tmp_path / CHECKPOINT, "pt") as stream:
        assert float(stream.metadata()["seconds"]) > 0.25


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
    with pytest.raises(InvalidInput, match=r"one of image/captions, .*image/emoji, "):
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
