"""Pictures from pictures, with the shipped model: how far they go, what they keep, what they refuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import perrin
from perrin.engine import Engine, Failed, Finished, Preview, Progress, Request
from perrin.errors import Degenerate, InvalidInput
from perrin.inputs import InputFile
from perrin.models import find
from perrin.pictures import over
from perrin_image.face import ImageParameters
from perrin_image.painting import Canvas
from perrin_image.runtime import ImageRuntime

FEW: dict[str, Any] = {"steps": 6, "sampler": "dpmpp_2m"}


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("image")


@pytest.fixture(scope="module")
def apple(generate: perrin.Generator) -> perrin.Result:
    return generate("a red apple", seed=7)[0]


def png(pixels: np.ndarray) -> bytes:  # type: ignore[type-arg]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def mask(rows: slice, columns: slice = slice(None), side: int = 64) -> bytes:
    made = np.zeros((side, side), np.uint8)
    made[rows, columns] = 255
    return png(made)


def far(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_strength_goes_from_the_picture_to_as_if_there_were_none(
    generate: perrin.Generator, apple: perrin.Result
) -> None:
    made = {
        s: generate("green apple", image=apple.bytes(), seed=7, strength=s, **FEW)[0].value
        for s in (0, 0.3, 0.6, 0.9, 1)
    }
    assert (made[0] == apple.value).all()
    assert (made[1] == generate("green apple", seed=7, **FEW)[0].value).all()
    distances = [far(value, apple.value) for value in made.values()]
    assert distances == sorted(distances)
    assert distances[1] > 1


def test_defaults_follow_from_what_is_given() -> None:
    card, some = find("emoji-64"), "0" * 32

    def resolved(**values: Any) -> ImageParameters:
        return ImageParameters(**values).resolved(card)

    plain = resolved(prompt="pear")
    assert (plain.strength, plain.sampler, plain.steps) == (None, "calibrated", 8)
    assert resolved(prompt="pear", image=some, strength=1).sampler == "calibrated"
    for values, strength in (({"prompt": "pear"}, 0.6), ({}, 0.4), ({"mask": some}, 1.0), ({"expand": 8}, 1.0)):
        asked = resolved(image=some, **values)
        assert (asked.strength, asked.sampler, asked.steps) == (strength, "dpmpp_2m", 20)
        assert asked.resolved(card) == asked
    assert resolved(image=some, steps=7).steps == 7


def test_variations_differ_and_are_like_the_picture(generate: perrin.Generator, apple: perrin.Result) -> None:
    made = [item.value for item in generate(image=apple.bytes(), seed=1, count=3, **FEW)]
    for value in made:
        assert 1 < far(value, apple.value) < 12
    assert min(far(made[0], made[1]), far(made[1], made[2])) > 0.5


def test_what_the_mask_keeps_comes_back_bit_for_bit(generate: perrin.Generator) -> None:
    noisy = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    image = png(noisy)
    for background in ("white", "transparent", "#12ab34"):
        made = generate("blue fish", image=image, mask=mask(slice(20, 41), slice(9, 30)), background=background, **FEW)
        value = made[0].value
        changed = (value[..., :3] != noisy).any(-1)
        kept = np.ones((64, 64), bool)
        kept[20:41, 9:30] = False
        assert not (changed & kept).any()
        assert (changed & ~kept).mean() > 0.09
        again = Image.open(io.BytesIO(made[0].bytes("webp"))).convert("RGBA" if value.shape[-1] == 4 else "RGB")
        assert (np.asarray(again) == value).all()


def test_kept_pixels_of_a_transparent_picture_keep_their_alpha(generate: perrin.Generator) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 4), np.uint8)
    asked = {"image": png(pixels), "mask": mask(slice(0, 32)), **FEW}
    value = generate("blue fish", background="transparent", **asked)[0].value
    assert (value[32:] == pixels[32:]).all()
    value = generate("blue fish", background="#336699", **asked)[0].value
    assert (value[32:] == over(pixels, "#336699")[32:]).all()


def test_a_mask_of_another_size_is_fitted_and_an_all_white_one_keeps_nothing(
    generate: perrin.Generator, apple: perrin.Result
) -> None:
    small = generate("pear", seed=3, image=apple.bytes(), mask=mask(slice(0, 8), side=16), **FEW)[0].value
    assert (small[33:] == apple.value[33:]).all()
    assert far(small[:31], apple.value[:31]) > 1
    white = generate("pear", seed=3, image=apple.bytes(), mask=mask(slice(None)), **FEW)[0].value
    assert (white == generate("pear", seed=3, **FEW)[0].value).all()


def test_expand_keeps_the_picture_made_smaller_and_paints_around_it(generate: perrin.Generator) -> None:
    noisy = np.random.default_rng(1).integers(0, 200, (48, 48, 3), np.uint8)
    value = generate("fireworks", image=png(noisy), expand=8, seed=2, **FEW)[0].value
    assert value.shape == (64, 64, 3)
    assert (value[8:-8, 8:-8] == noisy).all()
    assert value[:8].std() > 5


def test_expand_paints_over_white_paper(generate: perrin.Generator, apple: perrin.Result) -> None:
    value = generate("fireworks", image=apple.bytes(), expand=12, seed=2, **FEW)[0].value
    assert (value[14:18, 14:18] < 250).any(), "what was paper around the apple"


def test_a_thin_line_is_painted_whole_and_a_border_fades() -> None:
    gray, black = np.full((16, 16, 4), 100, np.uint8), np.zeros((16, 16, 3), np.uint8)
    gray[..., 3] = 255
    line = np.zeros((16, 16), bool)
    line[8] = True
    assert (Canvas(gray, gray, line).composite(black, "white")[8] == 0).all()
    half = np.zeros((16, 16), bool)
    half[8:] = True
    column = Canvas(gray, gray, half).composite(black, "white")[:, 5, 0].tolist()
    assert column[:8] == [100] * 8
    assert column[8:] == sorted(column[8:], reverse=True)
    assert 0 < column[8] < 100
    assert column[10:] == [0] * 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "prompt: got None, wanted a value: it is required, unless there is an image"),
        ({"prompt": "pear", "strength": 0.5}, "strength: got 0.5, wanted an image as well"),
        ({"prompt": "pear", "mask": mask(slice(9))}, "wanted an image as well"),
        ({"prompt": "pear", "expand": 4}, "expand: got 4, wanted an image as well"),
        ({"image": True, "expand": 25}, "expand: got 25, wanted at most 24 for a picture of 64 pixels"),
        ({"image": True, "expand": -1}, "expand: got -1, wanted an integer of at least 0"),
        ({"image": True, "strength": 1.1}, "strength: got 1.1, wanted a finite number of at least 0 and at most 1"),
        ({"image": True, "strength": float("nan")}, "strength: got nan"),
        ({"image": True, "sampler": "calibrated"}, "sampler: got 'calibrated', wanted another"),
        ({"image": True, "strength": 0.1, "sampler": "pndm", "steps": 6}, "strength: got 0.1, wanted more, or more"),
        ({"image": True, "mask": mask(slice(0))}, "mask: got 'a mask without white', wanted white where to paint"),
        ({"image": True, "mask": b"GIF89a"}, "mask: got 'image/gif', wanted a "),
        ({"image": b"GIF89a"}, "image: got 'image/gif', wanted a "),
        ({"image": b"a text"}, "image/*: this is text/plain"),
        ({"image": b""}, "image: got b'', wanted a file with something in it"),
        ({"image": "no/such.png"}, "image: got 'no/such.png', wanted a file that can be read"),
        ({"prompt": "pear", "background": "pink"}, "background: got 'pink', wanted white, transparent, or a colour"),
        ({"prompt": "pear", "background": "#12345"}, "wanted white, transparent, or a colour such as #ffcc00"),
        ({"prompt": "pear", "background": "transparent", "format": "jpg"}, "wanted png or webp: JPEG has no transp"),
    ],
)
def test_bad_input_is_one_line(
    generate: perrin.Generator, apple: perrin.Result, values: dict[str, Any], message: str
) -> None:
    if values.get("image") is True:
        values = {**values, "image": apple.bytes()}
    with pytest.raises(InvalidInput) as caught:
        generate(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_backgrounds(generate: perrin.Generator) -> None:
    white, clear, blue = (
        generate("rocket", seed=4, background=b)[0].value for b in ("white", "transparent", "#0000ff")
    )
    assert clear.shape == (64, 64, 4)
    assert (clear[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()
    assert 0.1 < (clear[..., 3] > 200).mean() < 0.9
    assert far(over(clear, "white"), white) < 1
    assert (blue == over(clear, "#0000ff")).all()
    assert tuple(blue[0, 0]) == (0, 0, 255)


def test_empty_and_flat_pictures_are_no_success(generate: perrin.Generator) -> None:
    runtime = object.__new__(ImageRuntime)
    with pytest.raises(Degenerate, match="transparent all over"):
        runtime.check(np.random.default_rng(0).integers(0, 7, (8, 8, 4), np.uint8))
    with pytest.raises(Degenerate, match=r"RGB \[255, 0, 0\]"):
        runtime.check(np.full((8, 8, 3), (255, 0, 0), np.uint8))
    shape = np.full((8, 8, 4), 0, np.uint8)
    shape[2:6, 2:6] = (255, 0, 0, 255)
    runtime.check(shape)
    with pytest.raises(Degenerate, match="one flat colour"):
        generate(image=png(np.full((64, 64, 3), 90, np.uint8)), strength=0)


def finished(engine: Engine) -> dict[str, Any]:
    ends = {}
    while engine.requests:
        for event in engine.tick():
            if isinstance(event, Finished | Failed):
                ends[event.id] = event
    return ends


def test_the_engine_resumes_an_inpainting_to_the_bit_and_shows_it(apple: perrin.Result) -> None:
    files = {"image": InputFile("image/png", apple.bytes()), "mask": InputFile("image/png", mask(slice(0, 30)))}
    values = {"prompt": "pear", "seed": 7, "strength": 0.8, "image": "0" * 32, "mask": "1" * 32, **FEW}
    engine = Engine(preview_seconds=0.0)
    engine.admit(Request("whole", "image", values, "png", previews=True, inputs=files))
    state, seen = None, []
    while engine.requests:
        seen += engine.tick()
        if state is None and any(isinstance(e, Progress) and (e.stage, e.done) == ("step", 2) for e in seen):
            state = engine.save("whole")
    assert any(isinstance(e, Preview) for e in seen)
    rows = max(e.total for e in seen if isinstance(e, Progress) and e.stage == "step")
    assert rows < 6, "a strength of 0.8 leaves the noisiest rows out"
    other = Engine()
    other.admit(Request("resumed", "image", values, "png", state=state, inputs=files))
    assert finished(other)["resumed"].files[0].data == seen[-1].files[0].data


def test_requests_with_and_without_pictures_share_calls(apple: perrin.Result) -> None:
    """Each is what it is alone, to the last bits that kernels differ by between batch sizes."""
    files = {"image": InputFile("image/png", apple.bytes()), "mask": InputFile("image/png", mask(slice(0, 30)))}
    some = {"image": "0" * 32, "seed": 1, **FEW}
    asked: dict[str, tuple[dict[str, Any], dict[str, InputFile]]] = {
        "plain": ({"prompt": "pear", "seed": 1, **FEW}, {}),
        "from": ({"prompt": "green apple", **some}, {"image": files["image"]}),
        "into": ({"prompt": "green apple", **some, "mask": "1" * 32}, files),
    }
    together, sizes = Engine(tick_seconds=3600.0), []
    for name, (values, inputs) in asked.items():
        together.admit(Request(name, "image", values, "png", inputs=inputs))
    ends = finished(together)
    for name, (values, inputs) in asked.items():
        alone = Engine()
        alone.admit(Request(name, "image", {**values, "strict": True}, "png", inputs=inputs))
        difference = ends[name].results[0].astype(int) - finished(alone)[name].results[0]
        sizes.append(abs(difference).max())
    assert max(sizes) <= 2


def test_the_command_line_takes_files(tmp_path: Path, apple: perrin.Result, capsys: pytest.CaptureFixture[str]) -> None:
    from perrin.cli import main

    (tmp_path / "apple.png").write_bytes(apple.bytes())
    (tmp_path / "mask.png").write_bytes(mask(slice(0, 30)))
    words = ["generate", "image", "pear", "--seed", "3", "--steps", "4", "--sampler", "ddim"]
    words += ["--image", f"{tmp_path}/apple.png", "--mask", f"{tmp_path}/mask.png", "--out", f"{tmp_path}/out.webp"]
    assert main(words) == 0
    value = np.asarray(Image.open(tmp_path / "out.webp"))
    assert (value[30:] == apple.value[30:]).all()
    assert main(["inspect", f"{tmp_path}/out.webp"]) == 0
    assert "strength" in capsys.readouterr().out
    assert main(["generate", "image", "--out", f"{tmp_path}/none.png"]) == 2
    assert "unless there is an image" in capsys.readouterr().err
