from __future__ import annotations

import json
from pathlib import Path

import dots
import pytest

import perrin
from perrin.commands.inspect import read_metadata
from perrin.errors import Degenerate, InvalidInput, UnknownName

pytest.importorskip("torch", reason="runs a model in this process")


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dots.install(monkeypatch, tmp_path / "home")


def test_items_are_those_of_their_own_seeds() -> None:
    generate = perrin.load("dots", device="cpu")
    three = generate("a dot", seed=7, count=3)
    assert [item.seed for item in three] == [7, 8, 9]
    alone = generate("a dot", seed=9)
    assert alone[0].bytes() == three[2].bytes() == three[-1].bytes()
    assert [item.value for item in three[1:]] == ["a dot 8 8", "a dot 8 9"]


def test_one_generator_reads_its_model_once() -> None:
    generate = perrin.load("dots", device="cpu")
    before = dots.DotRuntime.loads
    generate("a dot")
    generate("another")
    assert dots.DotRuntime.loads == before + 1


def test_the_ending_chooses_the_format_and_several_files_are_numbered(tmp_path: Path) -> None:
    two = perrin.load("dots", device="cpu")("a dot", seed=1, count=2)
    assert [path.name for path in two.save(tmp_path / "dot.png")] == ["dot-0.png", "dot-1.png"]
    (whole,) = two.save(tmp_path / "dot.dots")
    assert json.loads(whole.read_text())["items"] == ["a dot 8 1", "a dot 8 2"]
    assert json.loads(whole.read_text())["metadata"]["parameters"]["count"] == 2
    one = two[1].save(tmp_path / "one.png")
    assert read_metadata(one)["parameters"] | {"seed": 2, "count": 1} == read_metadata(one)["parameters"]
    with pytest.raises(InvalidInput, match=r"^format: .*png, dots"):
        two.save(tmp_path / "dot.exe")


def test_a_drawn_seed_is_recorded_and_repeats() -> None:
    generate = perrin.load("dots", device="cpu")
    first = generate("a dot")
    again = generate(**first.parameters.model_dump())
    assert again.files == first.files


def test_progress_counts_every_stage() -> None:
    seen: list[tuple[int, int, str]] = []
    perrin.load("dots", device="cpu")("a dot", progress=lambda *args: seen.append(args))
    stages = list(dict.fromkeys(stage for _, _, stage in seen))
    assert stages == ["load", "encode", "step", "decode", "write"]
    assert (3, 3, "step") in seen


def test_a_notebook_shows_a_picture() -> None:
    generate = perrin.load("dots", device="cpu")
    assert generate("a dot")[0]._repr_png_().startswith(b"\x89PNG")
    assert generate("a dot", format="dots")[0]._repr_png_() is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "a dot", "steps": 0}, "steps"),
        ({"prompt": "a dot", "guidance": float("nan")}, "guidance"),
        ({"prompt": "a dot", "colour": 1}, "colour"),
        ({"prompt": "a dot", "format": "exe"}, "format"),
        ({"prompt": "a dot", "sampler": "magic"}, "sampler"),
    ],
)
def test_bad_input_names_the_field(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        perrin.load("dots", device="cpu")(**arguments)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(UnknownName, match="one of dots"):
        perrin.load("nope")
    with pytest.raises(UnknownName, match="one of dots-8"):
        perrin.load("dots", model="nope")
    with pytest.raises(InvalidInput, match=r"^device: got 'abacus', wanted one of auto, cpu"):
        perrin.load("dots", device="abacus")


def test_a_failed_call_leaves_the_generator_usable() -> None:
    generate = perrin.load("dots", device="cpu")
    with pytest.raises(Degenerate):
        generate("nothing")
    with pytest.raises(ZeroDivisionError):
        generate("crash")
    with pytest.raises(KeyboardInterrupt):
        generate("interrupt")
    assert len(generate("a dot")) == 1
