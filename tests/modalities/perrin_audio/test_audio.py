"""The audio modality's whole path with small random networks: what is asked for comes, what is kept is kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from perrin.errors import Degenerate, InvalidInput
from perrin.inputs import InputFile
from perrin.modality import validate
from perrin_audio.face import modality
from perrin_audio.runtime import AudioRuntime, Heard

RATE = 16000


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def sound(seconds: float) -> Mapping[str, InputFile]:
    stream = io.BytesIO()
    soundfile.write(stream, tone(seconds), RATE, "FLOAT", format="WAV")
    return {"audio": InputFile("audio/wav", stream.getvalue())}


def made(runtime: AudioRuntime, inputs: Mapping[str, InputFile] | None = None, **values: Any) -> list[np.ndarray]:
    values = {"seed": 3, **values, **({"audio": "0" * 32} if inputs else {})}
    p = validate(modality, values).resolved(runtime.card)
    clean = runtime.start(p, inputs or {}).run()  # type: ignore[arg-type]
    return [heard.sound for heard in runtime.decode(clean, p, inputs or {})]  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.1, 0.333, 2.0, 2.048, 2.5, 7.01])
@pytest.mark.parametrize("prompt", ["violin, note A4", "a drum"])
def test_a_sound_is_as_long_as_asked_for_to_the_sample(runtime: AudioRuntime, prompt: str, seconds: float) -> None:
    (one,) = made(runtime, prompt=prompt, seconds=seconds)
    assert len(one) == round(seconds * RATE)
    assert np.isfinite(one).all()
    assert np.abs(one[-8:]).max() < 0.05 * np.abs(one).max(), "no click at its end"


def test_a_sound_for_a_clip_is_as_long_as_it(runtime: AudioRuntime) -> None:
    stream = io.BytesIO()
    frames = [Image.new("L", (8, 8), 40 * n) for n in range(5)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=250)
    inputs = {"clip": InputFile("image/gif", stream.getvalue())}
    p = validate(modality, {"prompt": "violin", "seed": 3, "clip": "0" * 32}).resolved(runtime.card)
    (one,) = runtime.decode(runtime.start(p, inputs).run(), p, inputs)
    assert p.seconds is None
    assert len(one.sound) == 1.25 * RATE
    with pytest.raises(InvalidInput, match="which says how long it is"):
        validate(modality, {"prompt": "violin", "seconds": 1.0, "clip": "0" * 32}).resolved(runtime.card)
    frames[0].save(stream := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:], duration=20000)
    with pytest.raises(InvalidInput, match=r"a clip of 0\.1 to 60 s"):
        runtime.start(p, {"clip": InputFile("image/gif", stream.getvalue())})


def test_an_item_is_the_same_whatever_is_made_beside_it(runtime: AudioRuntime) -> None:
    """Its spectrogram within what the order of sums changes; the waveform is made of that one alone."""
    for seconds in (2.0, 5.0):
        said = {"prompt": "violin, note A4", "seconds": seconds}
        both = validate(modality, {**said, "seed": 3, "count": 3}).resolved(runtime.card)
        one = validate(modality, {**said, "seed": 4}).resolved(runtime.card)
        together, alone = runtime.start(both).run(), runtime.start(one).run()
        torch.testing.assert_close(together[1], alone[0], atol=1e-4, rtol=1e-4)
        assert (together[0] - together[1]).abs().max() > 0.1
        (first,), second = runtime.decode(together[1:2], one), list(runtime.decode(together, both))[1]
        assert np.array_equal(first.sound, second.sound)


def test_the_note_is_said_in_the_prompt_or_beside_it(runtime: AudioRuntime) -> None:
    said = made(runtime, prompt="violin, note A4")[0]
    assert np.array_equal(made(runtime, prompt="violin", note="A4")[0], said)
    assert np.array_equal(made(runtime, prompt="violin, note C3", note="A4")[0], said)
    assert not np.array_equal(made(runtime, prompt="violin, note A#4")[0], said)
    assert not np.array_equal(made(runtime, prompt="violin, note A4", start=2.0)[0], said)


def test_what_is_not_renewed_comes_back_bit_for_bit(runtime: AudioRuntime) -> None:
    given = tone(3.0)
    (one,) = made(runtime, sound(3.0), prompt="violin", renew="1-1.5")
    assert len(one) == len(given)
    outside = np.r_[0:RATE, RATE * 3 // 2 : 3 * RATE]
    assert np.array_equal(one[outside], given[outside])
    assert np.abs(one[RATE + 800 : RATE * 3 // 2 - 800] - given[RATE + 800 : RATE * 3 // 2 - 800]).max() > 1e-3


def test_a_sound_goes_on(runtime: AudioRuntime) -> None:
    given = tone(1.0)
    (one,) = made(runtime, sound(1.0), prompt="violin", extend=1.5)
    assert len(one) == round(2.5 * RATE)
    assert np.array_equal(one[: len(given)], given)
    assert np.abs(one[RATE + 400 :]).max() > 1e-3


def test_strength_nothing_gives_the_sound_back(runtime: AudioRuntime) -> None:
    assert np.array_equal(made(runtime, sound(2.0), strength=0)[0], tone(2.0))
    assert not np.array_equal(made(runtime, sound(2.0), strength=0.3)[0], tone(2.0))


def test_a_loop_has_no_seam(runtime: AudioRuntime) -> None:
    """Turned by half, it is the same sound: its middle is no more of a jump than its seam."""
    frames = 160
    (one,) = made(runtime, prompt="violin, note A4", seconds=frames * 256 / RATE, loop=True)
    jump = np.abs(np.diff(np.r_[one, one[:1]]))
    assert jump[-1] <= jump[:-1].max()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "violin", "strength": 0.5}, "strength"),
        ({"prompt": "violin", "renew": "0-1"}, "renew"),
        ({"prompt": "violin", "seconds": 0.05}, "seconds"),
        ({"prompt": "violin", "seconds": 61}, "seconds"),
        ({"prompt": "violin", "note": "H4"}, "note"),
        ({"prompt": "violin", "renew": "1-0.5"}, "renew"),
        ({"prompt": "violin", "loudness": 0}, "loudness"),
        ({"audio": "0" * 32, "extend": 1, "seconds": 3}, "seconds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    runtime: AudioRuntime, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate(modality, values).resolved(runtime.card)
    assert refused.value.field == field
    assert "\n" not in refused.value.message


def test_parts_to_renew_lie_within_the_sound(runtime: AudioRuntime) -> None:
    with pytest.raises(InvalidInput, match=r"within the sound's 1\.00 s"):
        made(runtime, sound(1.0), prompt="violin", renew="1.5-2")
    with pytest.raises(InvalidInput, match="one of own, griffin-lim"):
        made(runtime, prompt="violin", vocoder="mine")


def test_float_samples_are_for_wav_alone(runtime: AudioRuntime) -> None:
    p = validate(modality, {"prompt": "violin", "depth": "float"}).resolved(runtime.card)
    p.check_format(modality.format("wav"))
    with pytest.raises(InvalidInput, match="only WAV"):
        p.check_format(modality.format("ogg"))


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.full(RATE, 1e-5, np.float32), "silent"),
        (np.full(RATE, 0.5, np.float32), "constant"),
        (np.full(RATE, np.nan, np.float32), "not finite"),
        (np.sign(tone(1.0)), "clipped"),
        (np.zeros(0, np.float32), "silent"),
    ],
)
def test_a_degenerate_sound_is_no_success(runtime: AudioRuntime, samples: np.ndarray, said: str) -> None:
    with pytest.raises(Degenerate, match=said):
        runtime.check(Heard(samples, RATE))
    runtime.check(Heard(tone(1.0), RATE))


def test_a_preview_and_a_picture_are_pictures(runtime: AudioRuntime) -> None:
    assert (runtime.preview(torch.randn(2, 112, 128)) or b"").startswith(b"\x89PNG")
    said = {"prompt": "violin"}
    picture = runtime.export([Heard(tone(0.02), RATE)], modality.format("png"), said)
    assert picture.startswith(b"\x89PNG")
    assert picture == runtime.export([Heard(tone(0.02), RATE)], modality.format("png"), said)
