"""Clips in and out: what is written can be read again and says how it was made; what is broken is refused in a line."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from perrin.commands.inspect import read_metadata
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.media import sniff
from perrin_video import reading
from perrin_video.face import modality
from perrin_video.reading import read_clip
from perrin_video.writing import VideoClip, strip, write

METADATA = {"perrin": "0.1", "model": "emoji-motion", "parameters": {"prompt": 'a "Ünïcode" <rocket>', "seed": 7}}
NAMES = [format.name for format in modality.formats]


def frames(count: int = 6, height: int = 64, width: int = 64, channels: int = 3) -> Any:
    """A red box that goes to the right on white, or on nothing."""
    made = np.full((count, height, width, channels), 255 if channels == 3 else 0, np.uint8)
    for number in range(count):
        left = 4 + number * (width - 24) // max(1, count - 1)
        made[number, 20:36, left : left + 16] = (200, 30, 30, 255)[:channels]
    return made


def clip(channels: int = 3, seconds: Any = None, length: float | None = None) -> VideoClip:
    made = frames(channels=channels)
    when = np.arange(6) / 8 if seconds is None else np.asarray(seconds)
    return VideoClip(made, when, length or float(when[-1] + 0.125))


def given(data: bytes) -> InputFile:
    return InputFile(sniff(data), data)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_clip_gives_the_same_bytes_which_say_how_it_was_made(name: str, tmp_path: Path) -> None:
    data = write(clip(), name, METADATA)
    assert data == write(clip(), name, METADATA)
    path = tmp_path / f"r.{name}"
    path.write_bytes(data)
    assert read_metadata(path) == METADATA
    assert sniff(data) == modality.format(name).media_type


@pytest.mark.parametrize("name", ["mp4", "webm", "gif", "webp"])
@pytest.mark.parametrize("seconds", [np.arange(6) / 8, [0, 0.1, 0.2, 0.5, 1.0, 1.1]], ids=["steady", "varying"])
def test_frames_and_their_times_come_back(name: str, seconds: Any) -> None:
    written = clip(seconds=seconds)
    found = read_clip("video", given(write(written, name, METADATA)), 64)
    assert len(found.frames) == 6
    assert np.abs(found.seconds - np.asarray(seconds)).max() <= 0.011  # a GIF counts in hundredths
    difference = found.frames[..., :3].astype(int) - written.frames.astype(int)
    assert np.abs(difference).mean() < 2.5
    box = (found.frames[..., 1] < 128).any(1)
    assert [int(np.flatnonzero(row)[0]) for row in box] == pytest.approx([4, 12, 20, 28, 36, 44], abs=1)


def test_the_last_frame_is_shown_as_long_as_it_lasts() -> None:
    with av.open(io.BytesIO(write(clip(seconds=[0, 0.1, 0.2, 0.5, 1.0, 1.1], length=1.6), "mp4", {}))) as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(1.6, abs=0.002)


@pytest.mark.parametrize("name", ["gif", "webp"])
def test_transparency_comes_back(name: str) -> None:
    found = read_clip("video", given(write(clip(channels=4), name, METADATA)), 64)
    assert (found.frames[..., 3] == clip(channels=4).frames[..., 3]).all()


def test_a_zip_holds_every_frame_bit_for_bit() -> None:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(write(clip(channels=4), "zip", METADATA))) as archive:
        for number, frame in enumerate(clip(channels=4).frames):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(archive.read(f"{number:04}.png")))), frame)
        assert archive.read("frames.csv").decode().splitlines()[1:3] == ["0000.png,0.000", "0001.png,0.125"]


@pytest.mark.parametrize("name", ["mp4", "webm", "zip"])
def test_a_file_cut_short_is_refused_when_it_is_inspected(name: str, tmp_path: Path) -> None:
    data = write(clip(), name, METADATA)
    path = tmp_path / f"r.{name}"
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InvalidInput, match="whole"):
        read_metadata(path)


def encoded(pictures: Any, pts: list[int] | None = None, rotation: int = 0, audio: bool = False) -> bytes:
    """An MP4 by PyAV alone, at 30 frames a second unless ``pts``, in thirtieths, says otherwise."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        if audio:
            sound: Any = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
            return _closed(container, target)
        stream: Any = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for number, picture in enumerate(pictures):
            one: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
            one.pts, one.time_base = (number if pts is None else pts[number]), Fraction(1, 30)
            container.mux(stream.encode(one))
        container.mux(stream.encode(None))
    data = target.getvalue()
    return turned(data, rotation) if rotation else data


def _closed(container: Any, target: io.BytesIO) -> bytes:
    container.close()
    return target.getvalue()


def turned(data: bytes, degrees: int) -> bytes:
    """The display matrix of the track header says that players are to turn it (ISO/IEC 14496-12, section 8.3.2)."""
    assert degrees == 90
    matrix = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    straight = b"".join(n.to_bytes(4, "big", signed=True) for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    at = data.index(straight, data.index(b"tkhd"))
    return data[:at] + matrix + data[at + len(matrix) :]


def test_a_turned_clip_comes_upright() -> None:
    pictures = np.full((3, 64, 96, 3), 255, np.uint8)
    pictures[:, 8:24, 72:88] = (200, 30, 30)  # at the upper right; turned clockwise by a player, at the lower right
    found = read_clip("video", given(encoded(pictures, rotation=90)), 64)
    red = found.frames[0, ..., 1] < 128
    rows, columns = np.nonzero(red)
    assert rows.mean() > 40
    assert columns.mean() > 32


def test_a_rate_that_varies_is_kept() -> None:
    found = read_clip("video", given(encoded(frames(5), pts=[0, 1, 2, 30, 31])), 64)
    assert found.seconds == pytest.approx([0, 1 / 30, 2 / 30, 1, 31 / 30], abs=2e-3)
    shown = found.at([0.5, 0.99, 1.001])
    assert np.array_equal(shown[0], found.frames[2])
    assert np.array_equal(shown[2], found.frames[3])


def test_one_frame_is_a_clip() -> None:
    found = read_clip("video", given(encoded(frames(1))), 64)
    assert len(found.frames) == 1
    assert found.length > 0
    assert found.rate > 0


def test_what_is_no_clip_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(frames(8))
    cases = {
        "broken": (b"\0\0\0\x18ftypmp42" + b"junk" * 40, "can be read"),
        "cut": (whole[:200], "can be read|whole|frames"),
        "text": (b"\x1aE\xdf\xa3 this is webm, is it", "can be read"),
        "gif": (b"GIF89a" + b"\0" * 30, "can be read|whole"),
        "sound": (encoded(None, audio=True), "pictures"),
    }
    for name, (data, wanted) in cases.items():
        with pytest.raises(InvalidInput, match=wanted) as raised:
            read_clip("video", given(data), 64)
        assert "\n" not in str(raised.value), name
        assert "video" in str(raised.value), name
    monkeypatch.setattr(reading, "MOST_READ", 4)
    with pytest.raises(InvalidInput, match="at most 60 s and 4 frames"):
        read_clip("video", given(whole), 64)
    monkeypatch.setattr(reading, "MOST_PIXELS", 1000)
    for data in (whole, write(clip(), "gif", {})):
        with pytest.raises(InvalidInput, match="pixels a frame"):
            read_clip("video", given(data), 64)


def test_a_strip_shows_the_clip_from_end_to_end() -> None:
    made = np.asarray(strip(frames(16), 8))
    assert made.shape == (128, 256, 3)
    assert np.array_equal(made[:64, :64], frames(16)[0])
    assert np.array_equal(made[64:, 192:], frames(16)[15])
