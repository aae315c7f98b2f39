"""Weights inside prompts, and what lies between two prompts and two seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import perrin
from perrin.diffusion.noise import normals
from perrin.engine import Engine, Failed, Finished, Request
from perrin.errors import InvalidInput
from perrin_image.between import blend, slerp
from perrin_image.data.colours import dominant_colour
from perrin_image.prompts import read_prompt

FEW: dict[str, Any] = {"steps": 8, "sampler": "dpmpp_2m"}


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("image")


def colour(value: np.ndarray) -> str | None:  # type: ignore[type-arg]
    covered = np.where(255 - value.min(-1).astype(int) > 24, 255, 0).astype(np.uint8)
    return dominant_colour(np.dstack([value, covered]), 0.4)


@pytest.mark.parametrize(
    ("prompt", "text", "parts"),
    [
        ("red apple", "red apple", ()),
        ("(red:1.3) apple", "red apple", (("apple", 1.3),)),
        (
            "a (red:.5) apple (with a leaf: 2)",
            "a red apple with a leaf",
            (("a apple with a leaf", 0.5), ("a red apple", 2)),
        ),
        ("(red apple:1.5)", "red apple", (("", 1.5),)),
        ("(red:1) apple", "red apple", ()),
        ("apple (red)", "apple (red)", ()),
        ("apple (red: very)", "apple (red: very)", ()),
        (r"apple \(red:1.3\)", "apple (red:1.3)", ()),
        (r"(a \(b\):0) c", "a (b) c", (("c", 0.0),)),
        ("a  b  (c", "a  b  (c", ()),
    ],
)
def test_prompts_are_read(prompt: str, text: str, parts: tuple[tuple[str, float], ...]) -> None:
    assert read_prompt(prompt) == (text, parts)


@given(st.text(st.characters(exclude_characters="()\\"), max_size=40))
def test_a_prompt_without_parentheses_is_left_as_it_is(prompt: str) -> None:
    assert read_prompt(prompt) == (prompt, ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "clock (12:30)"}, r"prompt: got 'clock (12:30)', wanted weights from 0 to 2; \( and \)"),
        ({"prompt": "(a:0) (b:0) (c:0) (d:0) (e:0)"}, "at most 4 weighted parts"),
        ({"prompt": "( :1.2)"}, "a prompt of at least one word"),
        ({"prompt": "(red:1.2) apple", "morph": "pear"}, "morph: got 'pear', wanted a prompt without weights"),
        ({"prompt": "pear", "blend": 0.5}, "blend: got 0.5, wanted a second prompt (morph) or seed (seed_to)"),
        ({"prompt": "pear", "morph": "fig", "blend": 1.5}, "blend: got 1.5, wanted a finite number of at least 0"),
        ({"prompt": "pear", "morph": " "}, "morph"),
        ({"prompt": "pear", "morph": "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 5}, "at most 64 tokens"),
        ({"prompt": "pear", "seed_to": -1}, "seed_to: got -1"),
        ({"image": b"", "morph": "pear"}, "image"),
    ],
)
def test_bad_input_is_one_line(generate: perrin.Generator, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        generate(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weight_nought_leaves_a_part_out_and_more_is_more(generate: perrin.Generator) -> None:
    values = {w: generate(f"(green:{w}) apple", seed=7, **FEW)[0].value.astype(int) for w in (0, 0.5, 1, 1.5)}
    plain, none = (generate(p, seed=7, **FEW)[0].value.astype(int) for p in ("green apple", "apple"))
    assert abs(values[1] - plain).max() <= 2
    assert abs(values[0] - none).max() <= 4
    greenness = [float((v[..., 1] - v[..., 0]).mean()) for v in values.values()]
    assert greenness == sorted(greenness)


def test_morph_goes_from_one_prompt_to_the_other(generate: perrin.Generator) -> None:
    made = generate("red apple", morph="green pear", seed=7, count=5, **FEW)
    ends = [generate(p, seed=7, **FEW)[0].value.astype(int) for p in ("red apple", "green pear")]
    assert abs(made[0].value - ends[0]).max() <= 2
    assert abs(made[4].value - ends[1]).max() <= 2
    assert [colour(item.value) for item in (made[0], made[4])] == ["red", "green"]
    along = [float(np.abs(item.value - ends[0]).mean()) for item in made]
    assert along == sorted(along)
    middle = made[2]
    assert middle.seed == 7
    again = generate(**middle.metadata["parameters"])[0]
    assert abs(again.value.astype(int) - middle.value).max() <= 2
    half = generate("red apple", morph="green pear", seed=7, **FEW)[0]
    assert abs(half.value.astype(int) - middle.value).max() <= 2
    same = generate("red apple", morph="green pear", blend=0.5, seed=7, count=2, **FEW)
    assert [item.seed for item in same] == [7, 8]
    assert abs(same[0].value.astype(int) - middle.value).max() <= 2


def test_seed_to_goes_from_one_seed_to_the_other(generate: perrin.Generator) -> None:
    made = generate("dog", seed=7, seed_to=21, count=3, **FEW)
    ends = [generate("dog", seed=s, **FEW)[0].value.astype(int) for s in (7, 21)]
    assert abs(made[0].value - ends[0]).max() <= 2
    assert abs(made[2].value - ends[1]).max() <= 2
    again = generate(**made[1].metadata["parameters"])[0]
    assert abs(again.value.astype(int) - made[1].value).max() <= 2


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.floats(0, 1))
def test_noise_between_two_seeds_is_as_likely_as_theirs(a: int, b: int, place: float) -> None:
    shape = (16, 8, 8)
    ends = [normals([seed], 0, shape) for seed in (a, b)]
    assert np.allclose(slerp([a], [b], [0.0], shape), ends[0], atol=1e-6)
    assert np.allclose(slerp([a], [b], [1.0], shape), ends[1], atol=1e-6)
    deviation = float(slerp([a], [b], [place], shape).std())
    assert 0.85 < deviation < 1.15, "of 1,024 numbers 1 +- 0.022; a straight line between two would have 0.71 half-way"


def test_between_two_prompts_both_are_seen_and_at_an_end_only_one() -> None:
    tokens = torch.tensor([[[1.0], [2.0], [3.0]], [[5.0], [6.0], [0.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    made, seen = blend(tokens, mask, [0, 0.5, 1])
    assert made[..., 0].tolist() == [[1, 2, 3], [3, 4, 1.5], [5, 6, 0]]
    assert seen.tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_morphs_weights_and_plain_prompts_share_an_engine_and_resume_to_the_bit() -> None:
    asked: dict[str, dict[str, Any]] = {
        "morph": {"prompt": "red apple", "morph": "pear", "seed_to": 3, "count": 2},
        "weight": {"prompt": "(red:1.4) apple"},
        "plain": {"prompt": "red apple"},
    }

    def request(name: str, **more: Any) -> Request:
        return Request(name, "image", {**asked[name], "seed": 1, "steps": 4, "sampler": "dpmpp_2m"}, "png", **more)

    def finished(engine: Engine, after: int = 0) -> tuple[dict[str, Any], dict[str, bytes]]:
        ends, states = {}, {}
        while engine.requests:
            for event in engine.tick():
                if isinstance(event, Finished | Failed):
                    ends[event.id] = event
            after -= 1
            if after == 0:
                states = {name: engine.save(name) or b"" for name in asked}
        return ends, states

    together, alone = (Engine(tick_seconds=3600.0) for _ in range(2))  # all have their turn in each tick
    for name in asked:
        together.admit(request(name))
        alone.admit(request(name, strict=True))
    mixed, _ = finished(together)
    strict, states = finished(alone, after=4)
    resumed = Engine()
    for name in asked:
        for one, other in zip(mixed[name].results, strict[name].results, strict=True):
            assert abs(one.astype(int) - other).max() <= 2
        assert states[name]
        resumed.admit(request(name, strict=True, state=states[name]))
    again, _ = finished(resumed)
    for name in asked:
        assert [f.data for f in again[name].files] == [f.data for f in strict[name].files]
