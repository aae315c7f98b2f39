"""Calibrated plans: fitted by the command, kept beside the model, used by default, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="runs a model in this process")

import mixture

import perrin
from perrin.cli import main
from perrin.errors import InvalidInput, ModelError
from perrin.modality import validate
from perrin.models import find, verify


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return mixture.install(monkeypatch, tmp_path / "home")


CALIBRATE = ["models", "calibrate", "two-bells", "--steps=6", "--seeds=64", "--iterations=15", "--device=cpu"]


@pytest.fixture
def calibrated(folder: Path) -> Path:
    assert main(CALIBRATE) == 0
    return folder


def test_the_command_fits_judges_and_keeps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CALIBRATE) == 0
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:-1]]
    errors = {name.strip(): float(value) for name, value in rows}
    assert errors["calibrated 6"] < errors["dpmpp_2m 18"] < errors["dpmpp_2m 6"]
    card = find("two-bells")
    assert card.plans == (6,)
    verify(card)


def test_it_is_the_default_and_nothing_else_changes(calibrated: Path) -> None:
    generate = perrin.load("mixture", device="cpu")
    by_default = generate(seed=3, count=4)
    assert (by_default.parameters.sampler, by_default.parameters.steps) == ("calibrated", 6)
    exact = [item.value for item in generate(seed=3, count=4, sampler="dpmpp_2m", steps=300)]
    assert [item.value for item in by_default] == pytest.approx(exact, abs=0.1)
    resolved = {
        key: (made.sampler, made.steps)
        for key in ((None, 6), (None, 20), ("calibrated", None), ("ddim", None), ("ddim", 6))
        for made in [validate(mixture.face, {"sampler": key[0], "steps": key[1]}).resolved(find("two-bells"))]
    }
    assert resolved == {
        (None, 6): ("calibrated", 6),
        (None, 20): ("dpmpp_2m", 20),
        ("calibrated", None): ("calibrated", 6),
        ("ddim", None): ("ddim", 12),
        ("ddim", 6): ("ddim", 6),
    }
    assert find("two-bells").preferred == {"sampler": "calibrated", "steps": 6, "guidance": 1.0}
    assert mixture.face.schema()["properties"]["sampler"]["choices"][0] == "calibrated"


def test_what_does_not_fit_is_named(calibrated: Path) -> None:
    generate = perrin.load("mixture", device="cpu")
    with pytest.raises(InvalidInput, match=r"steps: got 9, .*one of 6"):
        generate(sampler="calibrated", steps=9)
    plan = calibrated / "plan-6.json"
    plan.write_text(plan.read_text().replace("0.", "1.", 1))
    with pytest.raises(ModelError, match=r"plan-6\.json"):
        perrin.load("mixture", device="cpu")()


def test_a_model_without_a_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = perrin.load("mixture", device="cpu")(seed=1)
    assert (made.parameters.sampler, made.parameters.steps) == ("dpmpp_2m", 12)
    with pytest.raises(InvalidInput, match="two-bells has no calibrated plan"):
        perrin.load("mixture", device="cpu")(sampler="calibrated", steps=6)
    assert "calibrated" not in mixture.face.schema()["properties"]["sampler"]["choices"]
    assert main(["models", "calibrate", "two-bells", "--prompts", str(folder / "none.txt")]) == 2
    assert "prompts: " in capsys.readouterr().err
