"""Motions, how captions say them, and the arithmetic that tells them apart: no model takes part."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from perrin.pictures import to_pixels, to_tensor, transparent
from perrin_video.clips import CHANCES, PORTRAIT, draw_clip, held_out, kept_back, render
from perrin_video.measure import judge, pose_of, still
from perrin_video.motions import KINDS, POSE, SPEEDS, Motion, placed, pose, said
from perrin_video.words import moves, thing_of

SECONDS = np.arange(16) / 8


def arrow() -> torch.Tensor:
    """A thing that looks alike from no two sides, (4, 64, 64)."""
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    draw.polygon([(32, 2), (58, 34), (44, 34), (44, 61), (20, 61), (20, 34), (6, 34)], fill=(200, 40, 40, 255))
    draw.ellipse((24, 44, 40, 60), fill=(30, 60, 200, 255))
    draw.rectangle((20, 36, 30, 44), fill=(250, 210, 40, 255))
    return to_tensor(np.array(image)[None])[0]


def clip_of(motion: Motion, seconds: Any = SECONDS) -> Any:
    return np.stack([transparent(frame) for frame in to_pixels(render(arrow(), pose(motion, seconds)))])


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "still"])
def test_arithmetic_tells_every_motion_and_speed(kind: str, speed: str) -> None:
    assert judge(clip_of(Motion(kind, speed)), SECONDS) == Motion(kind, speed)


def test_what_stands_still_is_still() -> None:
    frames = clip_of(Motion("still"))
    assert judge(frames, SECONDS) == Motion("still")
    assert still(frames)
    assert not still(clip_of(Motion("up", "slow")))


@given(st.sampled_from(list(KINDS)), st.sampled_from(list(SPEEDS)), st.floats(0, 20))
def test_a_pose_stays_within_what_can_be_drawn(kind: str, speed: str, second: float) -> None:
    found = dict(zip(POSE, pose(Motion(kind, speed), [second])[0].tolist(), strict=True))
    assert found["cos"] ** 2 + found["sin"] ** 2 == pytest.approx(1, abs=1e-5)
    assert 0.29 < math.exp(found["log_size"]) < 0.96
    assert 0.09 < found["opacity"] <= 1
    assert max(abs(found["x"]), abs(found["y"])) <= 1.63
    assert 0 <= found["apart"] < 0.851


@pytest.mark.parametrize("kind", ["spin", "spin back", "bounce", "orbit", "left", "up"])
def test_what_repeats_repeats(kind: str) -> None:
    period = {"spin": 2, "spin back": 2, "bounce": 1, "orbit": 2}.get(kind, 3.25 / 0.44)
    assert np.abs(pose(Motion(kind), SECONDS) - pose(Motion(kind), SECONDS + period)).max() < 1e-4


def test_faster_is_the_same_path_sooner() -> None:
    for kind in ("bounce", "spin", "grow", "fade", "apart", "orbit"):
        assert np.allclose(pose(Motion(kind, "fast"), SECONDS), pose(Motion(kind), SPEEDS["fast"] * SECONDS), atol=1e-5)


def test_the_thing_is_where_its_pose_says() -> None:
    """A render's box is the pose that it was rendered at, up to a pixel."""
    for kind in ("up", "right", "grow", "orbit", "still"):
        for aim, frame in zip(pose(Motion(kind), SECONDS), clip_of(Motion(kind)), strict=True):
            found = pose_of(frame)
            assert found is not None
            assert np.abs(found[:2] - aim[:2]).max() < 2 / 32
            assert abs(found[2] - aim[2]) < 0.12


def test_a_motion_seen_nearer_is_larger_alike() -> None:
    path = pose(Motion("orbit"), SECONDS)
    near = placed(path, 1.5, (0.1, -0.2))
    assert np.allclose(near[:, 0], 1.5 * path[:, 0] + 0.1)
    assert np.allclose(np.exp(near[:, 2]), 1.5 * np.exp(path[:, 2]))
    assert np.allclose(near[:, 3:6], path[:, 3:6])


@pytest.mark.parametrize(
    ("caption", "thing", "moving"),
    [
        ("a rocket flying up", "a rocket", True),
        ("a rocket slowly flying up", "a rocket", True),
        ("A red apple bouncing fast", "a red apple", True),
        ("two strawberries drifting apart", "strawberry", True),
        ("two blue hearts slowly moving apart", "blue heart", True),
        ("a gear", "a gear", False),
        ("a snowman standing still", "a snowman", False),
        ("spinning", "spinning", True),
        ("a merry-go-round", "a merry-go-round", False),
    ],
)
def test_a_caption_is_a_thing_and_what_it_does(caption: str, thing: str, moving: bool) -> None:
    assert thing_of(caption) == thing
    assert moves(caption) == moving


@given(st.sampled_from(list(KINDS)), st.sampled_from(list(SPEEDS)), st.integers(0, 2**32))
def test_what_is_said_can_be_taken_apart(kind: str, speed: str, seed: int) -> None:
    caption = said("blue heart", Motion(kind, speed), np.random.default_rng(seed))
    assert thing_of(caption).removeprefix("a ") == "blue heart"


def test_combinations_that_are_held_out_are_never_drawn() -> None:
    assert len(held_out()) == 40
    assert len({(entry["thing"], entry["kind"]) for entry in held_out()}) == 40
    assert all(entry["kind"] in KINDS and entry.get("speed", "") in SPEEDS for entry in held_out())
    assert set(CHANCES) == set(KINDS)
    records = [SimpleNamespace(captions=(words,)) for words in ("rocket", "a red apple with a leaf", "gear", "heart")]
    generator = np.random.default_rng(0)
    drawn = [draw_clip(records, number, generator) for number in (0, 1, 2, 3) for _ in range(150)]
    for clip in drawn:
        assert not kept_back(records[clip.record].captions, clip.motion.kind), clip.caption
    assert {clip.motion.kind for clip in drawn if clip.record == 3} == set(KINDS)
    assert {"up", "down"}.isdisjoint({clip.motion.kind for clip in drawn if clip.record == 0})


def test_the_portrait_is_the_picture_itself() -> None:
    assert (render(arrow(), PORTRAIT)[0] - arrow()).abs().mean() < 0.05
