"""The image plugin with its shipped model: what it draws, that it repeats, what it refuses, what it writes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import perrin
from perrin.engine import Engine, Failed, Finished, Preview, Progress, Request
from perrin.errors import Degenerate, InvalidInput, ModelError, UnknownName
from perrin.models import find, verify
from perrin.models.card import read_card
from perrin.models.weights import load_network
from perrin.pictures import grid_of, to_pixels, transparent
from perrin.plugins import modality
from perrin_image.data.colours import dominant_colour
from perrin_image.runtime import ImageRuntime


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("image")


def _colour(value: np.ndarray) -> str | None:  # type: ignore[type-arg]
    """Dominant colour word of a picture on white."""
    distance = 255 - value.min(-1).astype(int)
    alpha = np.where(distance > 24, 255, 0).astype(np.uint8)
    return dominant_colour(np.dstack([value, alpha]), 0.4)


@pytest.mark.parametrize(
    ("prompt", "colour"), [("a red apple", "red"), ("blue heart", "blue"), ("green apple", "green"), ("snowman", None)]
)
def test_it_draws_what_the_prompt_says(generate: perrin.Generator, prompt: str, colour: str | None) -> None:
    value = generate(prompt, seed=7)[0].value
    assert value.shape == (64, 64, 3)
    corners = value[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 235).all(), "the background is white"
    covered = (value.min(-1) < 200).mean()
    assert 0.1 < covered < 0.95
    if colour:
        assert _colour(value) == colour


def test_the_same_request_gives_the_same_bytes(generate: perrin.Generator) -> None:
    a = generate("a red apple", seed=7, steps=5)[0].bytes()
    b = perrin.load("image")("a red apple", seed=7, steps=5)[0].bytes()
    assert a == b
    assert a != generate("a red apple", seed=8, steps=5)[0].bytes()


def test_item_i_is_seed_plus_i_alone(generate: perrin.Generator) -> None:
    """Kernels may differ in the last bit between batch sizes; the picture does not."""
    many = generate("rocket", seed=7, count=3, steps=5)
    alone = generate("rocket", seed=9, steps=5)
    difference = many[2].value.astype(int) - alone[0].value.astype(int)
    assert abs(difference).max() <= 2
    assert many[2].seed == 9


def test_metadata_is_enough_to_make_it_again(generate: perrin.Generator) -> None:
    first = generate("blue fish", seed=3, steps=4, guidance=2.5, negative="boat", count=2)
    image = Image.open(io.BytesIO(first[1].bytes()))
    metadata = json.loads(image.text["perrin"])
    assert metadata["model_sha256"] == generate.card.sha256
    assert image.text["Description"] == "blue fish"
    values = metadata["parameters"]
    assert set(values) == set(modality("image").parameters.model_fields)
    assert values | {"seed": 4, "guidance": 2.5, "negative": "boat", "count": 1} == values
    again = generate(**values)
    assert abs(again[0].value.astype(int) - first[1].value.astype(int)).max() <= 2


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m", "flow_euler"])
def test_every_sampler_draws_an_apple(generate: perrin.Generator, sampler: str) -> None:
    steps = 60 if sampler == "ddpm" else 25
    assert _colour(generate("a red apple", seed=7, sampler=sampler, steps=steps)[0].value) == "red"


def test_style_and_negative_change_the_picture(generate: perrin.Generator) -> None:
    plain, flat = (generate("a red apple", seed=7, steps=6, style=s)[0].value.astype(int) for s in ("noto", "flat"))
    assert abs(plain - flat).mean() > 2
    negative = generate("a red apple", seed=7, steps=6, style="noto", negative="leaf")[0].value.astype(int)
    assert abs(plain - negative).mean() > 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": ""}, "prompt: got '', wanted 1 to 2000 characters"),
        ({"prompt": "   "}, "prompt"),
        ({"prompt": "x" * 301}, "wanted at most 300 characters for model emoji-64"),
        ({"prompt": "x" * 2001}, "wanted 1 to 2000 characters"),
        ({"prompt": "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 5}, "at most 64 tokens"),
        ({"prompt": "apple", "steps": 0}, "steps: got 0, wanted an integer of at least 1 and at most 1000"),
        ({"prompt": "apple", "steps": 10**6}, "at most 1000"),
        ({"prompt": "apple", "guidance": float("nan")}, "guidance: got nan, wanted a finite number"),
        ({"prompt": "apple", "size": 65}, "size: got 65, wanted one of 64, 256, 96x64"),
        ({"prompt": "apple", "style": "cubist"}, "style: got 'cubist', wanted one of noto"),
        ({"prompt": "apple", "sampler": "magic"}, "sampler: got 'magic', wanted one of ddim"),
        ({"prompt": "apple", "count": 0}, "count"),
        ({"prompt": "apple", "seed": -1}, "seed"),
        ({"prompt": "apple", "colour": "red"}, "no such parameter"),
    ],
)
def test_bad_input_is_one_line_with_its_range(
    generate: perrin.Generator, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        generate(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="one of emoji-64"):
        perrin.load("image", model="nothing")
    with pytest.raises(UnknownName, match=r"one of .*image"):
        perrin.load("smell")


def test_a_flat_picture_is_no_success() -> None:
    runtime = object.__new__(ImageRuntime)
    with pytest.raises(Degenerate, match=r"RGB \[0, 0, 0\]"):
        runtime.check(np.zeros((64, 64, 3), np.uint8))
    runtime.check(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


def test_engine_reports_stages_previews_and_resumes_to_the_bit() -> None:
    values = {"prompt": "a red apple", "seed": 7, "steps": 8}
    engine = Engine(preview_seconds=0.0)
    engine.admit(Request("whole", "image", values, "png", previews=True))
    events, state = [], None
    while engine.requests:
        events += engine.tick()
        if state is None and any(isinstance(e, Progress) and (e.stage, e.done) == ("step", 5) for e in events):
            state = engine.save("whole")
    stages = list(dict.fromkeys(e.stage for e in events if isinstance(e, Progress)))
    assert stages == ["load", "encode", "step", "decode", "write"]
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) == 7
    assert Image.open(io.BytesIO(previews[0].png)).size == (64, 64)
    whole = events[-1]
    assert isinstance(whole, Finished)

    other = Engine()
    other.admit(Request("resumed", "image", values, "png", state=state))
    resumed = []
    while other.requests:
        resumed += other.tick()
    steps = [e for e in resumed if isinstance(e, Progress) and e.stage == "step"]
    assert steps[0].done == 5
    assert isinstance(resumed[-1], Finished)
    assert resumed[-1].files[0].data == whole.files[0].data


def test_two_requests_take_turns_and_one_that_fails_ends_alone() -> None:
    engine = Engine(tick_seconds=3600.0)  # else whoever does not fit into half a second waits for the next turn
    for name in ("a", "b"):
        engine.admit(Request(name, "image", {"prompt": name, "seed": 1, "steps": 3}, "png"))
    engine.admit(Request("broken", "image", {"prompt": "x", "seed": 1, "steps": 3}, "png", state=b"no state"))
    order, ends = [], {}
    while engine.requests:
        for event in engine.tick():
            if isinstance(event, Progress) and event.stage == "step" and event.done:
                order.append(event.id)
            if isinstance(event, Finished | Failed):
                ends[event.id] = event
    assert order == ["a", "b"] * 3
    assert isinstance(ends["broken"], Failed)
    assert isinstance(ends["a"], Finished)
    assert isinstance(ends["b"], Finished)


def test_card_is_complete_and_true() -> None:
    card = find("emoji-64")
    verify(card)
    size = sum((card.folder / name).stat().st_size for name in card.files)
    assert size <= 12 * 2**20
    assert card.attributions
    assert card.licence
    assert card.metrics
    for attribution in card.attributions:
        if attribution.licence.startswith("CC-BY"):
            assert attribution.line


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(find("emoji-64").folder, tmp_path / "copy")
    path = tmp_path / "copy" / "autoencoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="install it again"):
        load_network(read_card(tmp_path / "copy"), "autoencoder")


def test_pixels() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2).repeat(1, 4, 1, 1)
    assert to_pixels(x)[0, ..., 0].tolist() == [[0, 128], [255, 255]]
    over_white = np.array([[[255, 128, 128, 128]]], np.uint8)  # half-transparent red
    assert abs(transparent(over_white)[0, 0].astype(int) - [255, 1, 1, 128]).max() <= 1
    assert grid_of(np.zeros((3, 4, 4, 3), np.uint8), 2).shape == (10, 10, 3)
