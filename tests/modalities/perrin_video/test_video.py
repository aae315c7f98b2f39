"""The video plugin with its shipped model: what is asked for moves so, what is given stays, what is wrong is said."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import perrin
from perrin.cli import main
from perrin.commands.inspect import read_metadata
from perrin.errors import Degenerate, InvalidInput
from perrin.modality import validate
from perrin.models import find
from perrin_video.face import modality
from perrin_video.measure import judge, look
from perrin_video.motions import Motion
from perrin_video.runtime import VideoRuntime
from perrin_video.writing import VideoClip

FEW: dict[str, Any] = {"seed": 7, "size": 64, "steps": 6}


@pytest.fixture(scope="module")
def generate() -> perrin.Generator:
    return perrin.load("video", device="cpu")


@pytest.fixture(scope="module")
def rocket(generate: perrin.Generator) -> Any:
    return generate("a rocket flying up", format="mp4", background="white", **FEW)


@pytest.fixture(scope="module")
def apple() -> bytes:
    return perrin.load("image", device="cpu")("a red apple", seed=7)[0].bytes()


def white(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("prompt", "motion"),
    [
        ("a rocket flying up", Motion("up")),
        ("a red apple bouncing", Motion("bounce")),
        ("an automobile moving left", Motion("left")),
        ("a red heart growing", Motion("grow")),
    ],
)
def test_it_moves_as_the_prompt_says(generate: perrin.Generator, prompt: str, motion: Motion) -> None:
    value = generate(prompt, background="transparent", format="webp", **FEW)[0].value
    assert value.frames.shape == (16, 64, 64, 4)
    assert judge(value.frames, value.seconds) == motion


def test_it_shows_what_the_image_model_draws(generate: perrin.Generator, apple: bytes) -> None:
    """An apple is red, in every frame, as it is in the picture of that prompt and seed."""
    value = generate("a red apple bouncing", background="transparent", format="webp", **FEW)[0].value
    for frame in value.frames:
        colour = frame[frame[..., 3] > 200][:, :3].mean(0)
        assert colour[0] > 1.5 * max(colour[1:])


def test_the_same_request_gives_the_same_bytes(generate: perrin.Generator, rocket: Any) -> None:
    again = perrin.load("video", device="cpu")("a rocket flying up", format="mp4", background="white", **FEW)
    assert again.files[0].data == rocket.files[0].data
    assert generate("a rocket flying up", format="mp4", **{**FEW, "seed": 8}).files[0].data != rocket.files[0].data


def test_item_i_is_seed_plus_i_alone(generate: perrin.Generator) -> None:
    few = {**FEW, "steps": 3, "frames": 5}
    both = generate("a star spinning", count=2, **few)
    alone = generate("a star spinning", **{**few, "seed": 8})
    assert np.abs(both[1].value.frames.astype(int) - alone[0].value.frames).max() <= 2


def test_a_result_names_both_models(rocket: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.mp4"
    rocket.save(path)
    metadata = read_metadata(path)
    assert metadata["model"] == "emoji-motion"
    assert metadata["models"] == {"emoji-64": find("emoji-64").sha256}
    assert metadata["parameters"]["prompt"] == "a rocket flying up"
    assert metadata["parameters"]["fps"] == 8


def test_a_motion_takes_as_long_at_any_rate(generate: perrin.Generator) -> None:
    """At twice the rate, twice as many frames go as far."""
    few = {**FEW, "background": "transparent", "format": "webp"}
    slow = generate("a red apple moving right", frames=6, fps=4, **few)[0].value
    fast = generate("a red apple moving right", frames=11, fps=8, **few)[0].value
    assert slow.seconds[-1] == fast.seconds[-1] == 1.25
    ends = [look(value.frames).x[[0, -1]] for value in (slow, fast)]
    assert np.abs(ends[0] - ends[1]).max() < 0.1
    times = generate("a red apple moving right", times=[0, 0.25, 1.25], **few)[0].value
    assert np.abs(look(times.frames).x[[0, -1]] - ends[0]).max() < 0.12
    assert times.lasts == [250, 1000, 625]


@pytest.mark.parametrize("which", ["image", "last"])
def test_a_picture_that_is_given_is_a_frame_bit_for_bit(generate: perrin.Generator, apple: bytes, which: str) -> None:
    few = {**FEW, "steps": 4, "frames": 8, "format": "webp"}
    value = generate("growing" if which == "last" else "moving right", **{which: apple}, **few)[0].value
    assert np.array_equal(value.frames[0 if which == "image" else -1], white(apple))
    assert not np.array_equal(value.frames[0], value.frames[-1])


def test_two_pictures_need_no_prompt(generate: perrin.Generator, apple: bytes) -> None:
    pear = perrin.load("image", device="cpu")("a pear", seed=7)[0].bytes()
    value = generate(image=apple, last=pear, frames=5, **{**FEW, "steps": 4})[0].value
    assert np.array_equal(value.frames[0], white(apple))
    assert np.array_equal(value.frames[-1], white(pear))


@pytest.fixture(scope="module")
def clip(generate: perrin.Generator) -> bytes:
    return generate("a red apple bouncing", frames=8, format="webp", **FEW).files[0].data


def shown(data: bytes) -> list[Any]:
    picture = Image.open(io.BytesIO(data))
    found = []
    for number in range(picture.n_frames):
        picture.seek(number)
        found.append(np.asarray(picture.convert("RGB")))
    return found


def test_frames_that_are_kept_are_kept_and_the_rest_is_made_anew(generate: perrin.Generator, clip: bytes) -> None:
    value = generate("a red apple bouncing", video=clip, keep="0-2,7", **{**FEW, "seed": 9})[0].value
    same = [np.array_equal(a, b) for a, b in zip(value.frames, shown(clip), strict=True)]
    assert same == [True, True, True, False, False, False, False, True]


def test_between_every_two_frames_come_others(generate: perrin.Generator, clip: bytes) -> None:
    value = generate(video=clip, between=1, **{**FEW, "steps": 4})[0].value
    assert len(value.frames) == 15
    assert all(np.array_equal(a, b) for a, b in zip(value.frames[::2], shown(clip), strict=True))
    assert value.length == pytest.approx(1.0)
    assert value.seconds[1] == pytest.approx(1 / 16)


def test_of_a_clip_its_motion_stays_and_another_thing_moves(generate: perrin.Generator) -> None:
    few = {**FEW, "background": "transparent", "format": "webp"}
    first = generate("a red apple moving right", **few)
    other = generate("a blue heart", video=first.files[0].data, strength=0.9, **few)[0].value
    assert judge(other.frames, other.seconds).kind == "right"
    colour = other.frames[8][other.frames[8][..., 3] > 200][:, :3].mean(0)
    assert colour[2] > colour[0]
    back = generate("a blue heart", video=first.files[0].data, strength=0, **few)[0].value
    assert np.array_equal(back.frames[..., 3], first[0].value.frames[..., 3])


def test_a_loop_comes_round(generate: perrin.Generator) -> None:
    """From the last frame to the first it is no further than between others."""
    few = {**FEW, "background": "transparent", "format": "webp", "frames": 12}
    for prompt in ("a red apple bouncing", "a rocket flying up"):
        seen = look(generate(prompt, loop=True, **few)[0].value.frames)
        steps = np.abs(np.diff(np.append(seen.y, seen.y[0])))
        assert steps[-1] <= 1.3 * steps[:-1].max()
        assert np.ptp(seen.y) > 0.2


def test_prompts_follow_each_other(generate: perrin.Generator) -> None:
    few = {**FEW, "background": "transparent", "format": "webp"}
    value = generate("a red apple bouncing", travel=["1: a blue heart bouncing"], **few)[0].value
    colours = [frame[frame[..., 3] > 200][:, :3].mean(0) for frame in value.frames[[0, -1]]]
    assert colours[0][0] > colours[0][2]
    assert colours[1][2] > colours[1][0]


def test_a_clip_of_several_windows_keeps_its_colours(generate: perrin.Generator) -> None:
    from perrin_video.metrics.steadiness import drift

    few = {**FEW, "steps": 4, "background": "transparent", "format": "webp"}
    value = generate("a red apple bouncing", frames=36, **few)[0].value
    assert len(value.frames) == 36
    assert drift(value.frames, 3) < 0.05
    assert judge(value.frames[20:], value.seconds[20:] - value.seconds[20]).kind == "bounce"


def test_a_frozen_clip_is_no_success() -> None:
    runtime = VideoRuntime.load(find("emoji-motion"), "cpu")
    frame = np.full((64, 64, 3), 255, np.uint8)
    frame[20:40, 20:40] = (200, 30, 30)
    seconds = np.arange(8) / 8
    with pytest.raises(Degenerate, match="frozen"):
        runtime.check(VideoClip(np.stack([frame] * 8), seconds, 1.0, moves=True))
    runtime.check(VideoClip(np.stack([frame] * 8), seconds, 1.0, moves=False))
    runtime.check(VideoClip(np.stack([frame] * 8), seconds, 1.0, moves=True, kept=True))
    with pytest.raises(Degenerate, match="flat"):
        runtime.check(VideoClip(np.full((8, 64, 64, 3), 255, np.uint8), seconds, 1.0, moves=False))
    with pytest.raises(Degenerate, match="empty"):
        runtime.check(VideoClip(np.zeros((8, 64, 64, 4), np.uint8), seconds, 1.0, moves=False))


def test_a_frozen_job_fails_as_degenerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every pose the first one, a prompt that says that something moves ends so."""
    generate = perrin.load("video", device="cpu")
    real = VideoRuntime._clip

    def frozen(self: VideoRuntime, latent: torch.Tensor, p: Any, plot: Any) -> VideoClip:
        return real(self, latent[:, :1].expand_as(latent), p, plot)

    monkeypatch.setattr(VideoRuntime, "_clip", frozen)
    with pytest.raises(Degenerate, match="frozen"):
        generate("a rocket flying up", frames=4, **{**FEW, "steps": 2})
    assert len(generate("a rocket standing still", frames=4, **{**FEW, "steps": 2})) == 1


def test_a_preview_is_a_strip(generate: perrin.Generator) -> None:
    runtime = VideoRuntime.load(find("emoji-motion"), "cpu")
    made = runtime.preview(torch.zeros(1, 16, 16, 8, 8))
    assert made is not None
    assert Image.open(io.BytesIO(made)).size == (4 * 64, 2 * 64)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "prompt: got None, wanted a value: it is required"),
        ({"prompt": " "}, "1 to 300 characters"),
        ({"prompt": "a star", "frames": 0}, "frames: got 0, wanted an integer of at least 1 and at most 240"),
        ({"prompt": "a star", "fps": 0.5}, "fps: got 0.5, wanted a finite number of at least 1.0 and at most 60.0"),
        ({"prompt": "a star", "size": 100}, "size: got 100, wanted one of 64, 128, 256"),
        ({"prompt": "a star", "style": "oil"}, "style: got 'oil', wanted one of noto"),
        ({"prompt": "a star", "times": [0, 1, 1]}, "each later than the one before"),
        ({"prompt": "a star", "times": [0, 1], "frames": 3}, "frames: got 3, wanted 2, as there are times"),
        ({"prompt": "a star", "travel": ["a heart"]}, "SECOND: PROMPT"),
        ({"prompt": "a star", "keep": "0"}, "wanted a clip as well"),
        ({"prompt": "a star", "strength": 0.5}, "wanted a clip as well"),
        ({"prompt": "a star", "loop": True, "frames": 1}, "at least 2 for a loop"),
        ({"prompt": "a star", "loop": True, "image": "0" * 32}, "no pictures, clip or times as well"),
        ({"video": "0" * 32, "keep": "0", "between": 2}, "none beside between"),
        ({"video": "0" * 32, "keep": "first"}, "numbers of frames from 0"),
        ({"video": "0" * 32, "keep": "9", "frames": 4}, "keep: got '9', wanted frames 0 to 3"),
        ({"video": "0" * 32, "keep": "0-3", "frames": 4}, "fewer than all 4 frames"),
        ({"video": "0" * 32, "image": "0" * 32}, "none beside a clip"),
        ({"prompt": "a star", "background": "red"}, "white, transparent, or a colour"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        validate(modality, values).resolved(find("emoji-motion"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_line_makes_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.mp4"
    line = [
        "generate",
        "video",
        "a rocket flying up",
        "--seed",
        "7",
        "--steps",
        "2",
        "--frames",
        "4",
        "--device",
        "cpu",
    ]
    assert main([*line, "--out", str(out)]) == 0, capsys.readouterr().err
    assert out.read_bytes()[4:8] == b"ftyp"
    assert main(["generate", "video", "a star", "--video", str(out), "--keep", "0-7", "--out", str(out)]) == 2
    assert "frames 0 to 3" in capsys.readouterr().err
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(out.read_bytes()[:40] + b"\0" * 400)
    assert main(["generate", "video", "a star", "--video", str(bad), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("perrin: video: got")
    assert "Traceback" not in said
    assert main(["generate", "video", "a star", "--background", "transparent", "--out", str(out)]) == 2
    assert "no transparency" in capsys.readouterr().err
