"""Clips with a sound: it comes back as it was, as long as the clip; what is no sound is refused in a line."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
import soundfile

import perrin
from perrin.clip_length import clip_seconds
from perrin.commands.inspect import read_metadata
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.media import sniff
from perrin.modality import validate
from perrin_video.face import modality
from perrin_video.tracks import RATE, read_track
from perrin_video.writing import VideoClip, write

FRAMES = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), np.uint8)


def tone(seconds: float, rate: int = 16000, kind: str = "WAV", hertz: float = 440.0) -> InputFile:
    stream = io.BytesIO()
    soundfile.write(
        stream, 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate, format=kind
    )
    return InputFile(sniff(stream.getvalue()), stream.getvalue())


def pitch(track: Any) -> float:
    spectrum = np.abs(np.fft.rfft(track[0] * np.hanning(track.shape[1])))
    return float(np.argmax(spectrum) * RATE / track.shape[1])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_sound_is_read_as_long_as_the_clip(kind: str, seconds: float) -> None:
    track = read_track("sound", tone(seconds, kind=kind), 1.0)
    assert track.shape == (2, RATE)
    assert pitch(track) == pytest.approx(440, abs=3)
    assert np.abs(track[:, int(0.6 * RATE) :]).max() == pytest.approx(0.0 if seconds < 1 else 0.4, abs=0.03)


@pytest.mark.parametrize("name", ["mp4", "webm"])
def test_a_clip_is_heard(name: str, tmp_path: Any) -> None:
    clip = VideoClip(FRAMES, np.arange(8) / 8, 1.0, sound=read_track("sound", tone(1.0), 1.0))
    metadata = {"perrin": "1", "model": "m", "parameters": {"seed": 7}}
    data = write(clip, name, metadata)
    assert data == write(clip, name, metadata)
    (tmp_path / f"c.{name}").write_bytes(data)
    assert read_metadata(tmp_path / f"c.{name}") == metadata
    file = InputFile(sniff(data), data)
    heard = read_track("sound", file, 1.0)
    assert pitch(heard) == pytest.approx(440, abs=3)
    assert heard[:, RATE // 4 : RATE // 2].std() == pytest.approx(0.4 / np.sqrt(2), rel=0.1)
    assert clip_seconds("clip", file) == pytest.approx(1.0, abs=0.05)
    with av.open(io.BytesIO(data)) as container:
        assert len(list(container.decode(video=0))) == 8


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"fLaC",
        tone(1.0).data[:44],
        write(VideoClip(FRAMES, np.arange(8) / 8, 1.0), "mp4", {}),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="sound: ") as refused:
        read_track("sound", InputFile("audio/wav", data), 1.0)
    assert "\n" not in str(refused.value)


def test_no_other_format_has_a_sound() -> None:
    p = validate(modality, {"prompt": "a star", "sound": "0" * 32})
    with pytest.raises(InvalidInput, match="mp4 or webm"):
        p.check_format(modality.format("gif"))
    p.check_format(modality.format("mp4"))


def test_a_given_clip_gets_its_sound() -> None:
    given = write(VideoClip(FRAMES, np.arange(8) / 8, 1.0), "mp4", {})
    generate = perrin.load("video", device="cpu")
    made = generate(video=given, sound=tone(0.7).data, strength=0, seed=1)
    assert made[0].value.sound.shape == (2, RATE)
    assert made[0].value.kept
