"""Sizes of the shipped model: how they are said, four times as large, sheets, and tiles."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import perrin
from perrin.engine import Engine, Finished, Preview, Progress, Request
from perrin.errors import Degenerate, InvalidInput
from perrin.fields import read_fields
from perrin.models import find
from perrin.pictures import over
from perrin.plugins import modality
from perrin_image.face import ImageParameters
from perrin_image.finishing import Finish
from perrin_image.sizes import layout_of, pair, read_size, size_of
from perrin_image.tiles import repeat

FEW: dict[str, Any] = {"steps": 6, "sampler": "dpmpp_2m"}


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("image", device="cpu")


@pytest.fixture(scope="module")
def large(generate: perrin.Generator) -> perrin.Result:
    return generate("a red apple", seed=7, size=256)[0]


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def noisy(width: int, height: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def far(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def shrunk(pixels: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


# --- how a size is said -----------------------------------------------------------------------------------------------


@given(st.integers(16, 4096), st.integers(16, 4096))
def test_a_size_is_read_back(width: int, height: int) -> None:
    assert pair(size_of(width, height)) == (width, height)
    assert read_size(f" {width}X{height} ") == size_of(width, height) == read_size(size_of(width, height))
    assert read_size(str(width)) == width == read_size(width) == read_size(f"{width}x{width}")


@pytest.mark.parametrize("wrong", [15, 4097, 0, -64, True, 64.0, "", "64x", "x64", "64*64", "64x64x64", "٦٤", [64, 64]])
def test_what_is_no_size(wrong: object) -> None:
    assert read_size(wrong) is None
    with pytest.raises(InvalidInput) as caught:
        perrin.load("image")("pear", size=wrong)
    assert "wanted a side of 16 to 4096 pixels, or two, such as 96x64" in str(caught.value)


def test_layouts_follow_from_the_card() -> None:
    card = find("emoji-64")
    native = card.model_copy(update={"sheet": False})
    lone = card.model_copy(update={"upscaler": ""})
    for size, drawing, factor, middle in (
        (64, (64, 64), 1, (slice(0, 64), slice(0, 64))),
        (256, (256, 256), 4, (slice(0, 256), slice(0, 256))),
        ("96x64", (64, 64), 1, (slice(0, 64), slice(16, 80))),
        ("256x448", (256, 256), 4, (slice(96, 352), slice(0, 256))),
    ):
        made = layout_of(card, size)
        assert (made.drawing, made.factor, made.middle) == (drawing, factor, middle)
        assert made.sampled == (64, 64)
        assert layout_of(lone, size).factor == 1
    assert layout_of(native, "384x256").sampled == (96, 64)
    assert layout_of(native, "96x64").sampled == (96, 64)


def test_resolved_requests_schema_and_form_list_the_sizes() -> None:
    card, face = find("emoji-64"), modality("image")
    assert ImageParameters(prompt="pear").resolved(card).size == 64
    assert ImageParameters(prompt="pear", size="256x256").resolved(card).size == 256
    with pytest.raises(InvalidInput, match="size: got '64x80', wanted one of 64, 256, 96x64, 64x96"):
        ImageParameters(prompt="pear", size="64x80").resolved(card)
    field = next(field for field in read_fields(face.schema()) if field.name == "size")
    assert field.choices == tuple(size_of(*side) for side in card.sizes)
    assert "emoji-64-256" not in next(f for f in read_fields(face.schema()) if f.name == "model").choices


def test_the_command_line_says_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from perrin.cli import main

    words = ["generate", "image", "pear", "--seed", "3", "--steps", "4", "--sampler", "ddim"]
    assert main([*words, "--size", "96X64", "--out", f"{tmp_path}/wide.png"]) == 0
    with Image.open(tmp_path / "wide.png") as made:
        assert made.size == (96, 64)
        assert json.loads(made.text["perrin"])["parameters"]["size"] == "96x64"
    assert main([*words, "--size", "big", "--out", f"{tmp_path}/none.png"]) == 2
    assert "size: got 'big', wanted a side of 16 to 4096 pixels" in capsys.readouterr().err
    assert main(["models", "show", "emoji-64"]) == 0
    assert "emoji-64-256: " in capsys.readouterr().out


# --- four times as large ----------------------------------------------------------------------------------------------


def test_a_large_picture_is_the_small_one_with_more_to_see(generate: perrin.Generator, large: perrin.Result) -> None:
    small = generate("a red apple", seed=7)[0]
    assert large.value.shape == (256, 256, 3)
    assert far(shrunk(large.value, 64), small.value) < 4
    assert large.metadata["parameters"]["size"] == 256
    assert large.metadata["models"] == {"emoji-64-256": find("emoji-64-256").sha256}
    assert "models" not in small.metadata
    again = perrin.load("image", device="cpu")(**large.metadata["parameters"])[0]
    assert again.bytes() == large.bytes()


def test_an_item_is_the_same_alone_and_backgrounds_are_kept(generate: perrin.Generator) -> None:
    asked: dict[str, Any] = {"size": 256, **FEW}
    many = generate("rocket", seed=3, count=2, background="transparent", **asked)
    alone = generate("rocket", seed=4, background="transparent", **asked)[0].value
    assert far(many[1].value, alone) < 0.1
    assert alone.shape == (256, 256, 4)
    assert (alone[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()
    blue = generate("rocket", seed=4, background="#0000ff", **asked)[0]
    assert (blue.value == over(alone, "#0000ff")).all()
    assert Image.open(io.BytesIO(blue.bytes("jpg"))).size == (256, 256)


def test_what_is_kept_comes_back_from_the_large_picture(generate: perrin.Generator) -> None:
    pixels, mask = noisy(256, 256), np.zeros((256, 256), np.uint8)
    mask[31:130, 50:170] = 255
    for background in ("white", "transparent"):
        asked: dict[str, Any] = {"image": png(pixels), "mask": png(mask), "background": background}
        value = generate("blue fish", size=256, seed=1, **asked, **FEW)[0].value
        assert (value[mask == 0][:, :3] == pixels[mask == 0]).all()
        assert (value[mask > 0][:, :3] != pixels[mask > 0]).any(-1).mean() > 0.9
    rim = generate("fireworks", image=png(noisy(192, 192)), expand=32, size=256, seed=2, **FEW)[0].value
    assert (rim[32:-32, 32:-32] == noisy(192, 192)).all()


def test_strength_zero_enlarges_a_persons_own_picture(generate: perrin.Generator, large: perrin.Result) -> None:
    own = shrunk(large.value, 64)
    made = generate(image=png(own), strength=0, size=256, seed=1)[0].value
    assert far(shrunk(made, 64), own) < 4
    middle = generate(image=png(shrunk(large.value, 128)), strength=0, size=256, seed=1)[0].value
    assert far(middle, large.value) < far(made, large.value), "its own pixels count, not a quarter of the size"
    same = generate(image=large.bytes(), strength=0, size=256, seed=1)[0].value
    assert (same == large.value).all()
    assert (generate(image=png(noisy(256, 256)), strength=0, size=256)[0].value == noisy(256, 256)).all()
    tiny = generate(image=png(own[::4, ::4].copy()), strength=0, size=256, seed=1)[0].value
    assert tiny.shape == (256, 256, 3)
    assert (generate(image=png(own), strength=0, seed=1)[0].value == own).all()


def test_previews_and_resuming_work_as_for_small_ones() -> None:
    values = {"prompt": "a red apple", "seed": 7, "size": 256}
    engine, seen, state = Engine(preview_seconds=0.0), [], None
    engine.admit(Request("whole", "image", values, "png", previews=True))
    while engine.requests:
        seen += engine.tick()
        if state is None and any(isinstance(e, Progress) and (e.stage, e.done) == ("step", 5) for e in seen):
            state = engine.save("whole")
    assert any(isinstance(e, Preview) for e in seen)
    assert list(dict.fromkeys(e.stage for e in seen if isinstance(e, Progress)))[-2:] == ["decode", "write"]
    other, rest = Engine(), []
    other.admit(Request("resumed", "image", values, "png", state=state))
    while other.requests:
        rest += other.tick()
    assert isinstance(rest[-1], Finished)
    assert rest[-1].files[0].data == seen[-1].files[0].data


# --- sheets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "place"), [("96x64", np.s_[:, 16:80]), ("64x112", np.s_[24:88])])
def test_a_wide_picture_is_the_square_on_a_sheet(generate: perrin.Generator, size: str, place: Any) -> None:
    width, height = pair(size)
    for background, paper in (("white", 255), ("transparent", 0), ("#102030", [16, 32, 48])):
        square = generate("rocket", seed=4, background=background, **FEW)[0].value
        value = generate("rocket", seed=4, background=background, size=size, **FEW)[0].value
        assert value.shape[:2] == (height, width)
        assert (value[place] == square).all()
        sides = np.ones((height, width), bool)
        sides[place] = False
        assert (value[sides] == paper).all()


def test_pictures_go_onto_sheets_whole(generate: perrin.Generator, large: perrin.Result) -> None:
    """A square covers the middle; one of the sheet's shape covers it all; kept pixels are kept, the sides too."""
    square = generate(image=large.bytes(), strength=0, size="384x256")[0].value
    assert (square[:, 64:-64] == large.value).all()
    assert (square[:, :64] == 255).all()
    pixels, mask = noisy(96, 64), np.zeros((64, 96), np.uint8)
    mask[:, 40:90] = 255
    value = generate("pear", image=png(pixels), mask=png(mask), size="96x64", seed=1, **FEW)[0].value
    assert (value[:, :40] == pixels[:, :40]).all()
    assert (value[:, 90:] == pixels[:, 90:]).all()
    assert (value[:, 40:80] != pixels[:, 40:80]).any(-1).mean() > 0.9
    assert (value[:, 84:88] == 255).all(), "beside the square there is paper"
    half = generate("pear", image=png(pixels), strength=0.5, size="96x64", seed=1, **FEW)[0].value
    assert (half[:, :16] == pixels[:, :16]).all(), "what is not drawn is left as it was"
    assert far(half[:, 20:76], pixels[:, 20:76]) > 5
    rim = generate("pear", image=png(noisy(80, 48)), expand=8, size="96x64", seed=1, **FEW)[0].value
    assert (rim[8:-8, 8:-8] == noisy(80, 48)).all()


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "background"), [(64, "white"), ("96x64", "#ffeecc"), (256, "transparent")])
def test_a_tile_repeats_without_a_seam(generate: perrin.Generator, size: Any, background: str) -> None:
    made = generate("a red apple", seed=3, count=2, seamless=True, size=size, background=background, **FEW)
    tile = made[0].value.astype(int)
    width, height = pair(size)
    assert tile.shape[:2] == (height, width)
    laid = np.tile(tile, (2, 2, 1))
    for axis, side in ((0, height), (1, width)):
        steps = abs(np.diff(laid, axis=axis)).sum(-1).max(axis=1 - axis)
        assert steps[side - 1] <= np.delete(steps, side - 1).max()
    drawn = tile[..., 3] > 128 if background == "transparent" else abs(tile - tile[0, width // 2]).sum(-1) > 60
    assert drawn.any(0).mean() > 0.7
    assert drawn.any(1).mean() > 0.7
    alone = generate("a red apple", seed=4, seamless=True, size=size, background=background, **FEW)[0].value
    assert far(made[1].value, alone) < 0.2
    assert far(made[0].value, alone) > 1


def test_drawings_of_a_tile_touch_none_of_their_neighbours() -> None:
    square = np.zeros((64, 64, 4), np.uint8)
    square[4:60, 2:50] = (255, 0, 0, 255)
    other = square[..., [1, 0, 2, 3]]
    tile = repeat((square, other), 64, 64)
    red, green = ((tile[..., i] > 100) & (tile[..., 3] > 100) for i in (0, 1))
    assert 100 < red.sum() == green.sum()
    around = [np.roll(red, shift, axis) for axis in (0, 1) for shift in (1, -1)]
    assert not (green & np.logical_or.reduce([red, *around])).any()
    assert (np.roll(red, (32, 32), (0, 1)) == green).all(), "half a drop"
    bar = np.zeros((64, 64, 4), np.uint8)
    bar[30:36, 2:62] = 255
    assert (repeat((bar, bar), 64, 64)[..., 3] > 100)[:, [0, -1]].any(0).all(), "what runs over an edge comes back in"
    with pytest.raises(Degenerate, match="transparent all over"):
        repeat((square, np.zeros_like(square)), 64, 64)


@pytest.mark.parametrize("values", [{"image": png(noisy(64, 64))}, {"morph": "pear"}, {"seed_to": 4}])
def test_a_tile_is_of_its_prompt_and_seed(generate: perrin.Generator, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"seamless: got True, wanted no {next(iter(values))} as well"):
        generate("apple", seamless=True, **values)


def test_the_largest_seed_has_a_second_drawing(generate: perrin.Generator) -> None:
    assert generate("apple", seed=2**53 - 1, seamless=True, **FEW)[0].value.shape == (64, 64, 3)


def test_a_finish_without_an_upscaler_only_shrinks() -> None:
    from perrin.inputs import InputFile

    card = find("emoji-64")
    asked = ImageParameters(prompt="pear", seed=1, size=256).resolved(card)
    (value,) = Finish(asked, layout_of(card, 256)).given(InputFile("image/png", png(noisy(300, 280))))
    assert value.shape == (256, 256, 3)
