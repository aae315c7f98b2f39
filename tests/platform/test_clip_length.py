"""How long clips are: as long as they were written, by several muxers. Whatever is no clip is refused in one line."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perrin.clip_length import ALONE, clip_seconds
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin.media import sniff
from perrin_video.writing import VideoClip, write

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
CLIP = VideoClip(FRAMES, np.array([0, 0.25, 0.5, 1.0, 1.25]), 1.75)
FILES = {name: write(CLIP, name, {"perrin": "1"}) for name in ("mp4", "webm", "gif", "webp")}


def seconds(data: bytes) -> float:
    return clip_seconds("clip", InputFile(sniff(data), data))


@pytest.mark.parametrize("name", FILES)
def test_a_clip_is_as_long_as_it_was_written(name: str) -> None:
    assert seconds(FILES[name]) == pytest.approx(1.75, abs=0.011)


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm"])
def test_what_other_muxers_write(container: str) -> None:
    stream_file = io.BytesIO()
    with av.open(stream_file, "w", format=container) as target:
        stream = target.add_stream("libvpx-vp9" if container == "webm" else "libx264", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for n in range(25):
            frame = av.VideoFrame.from_ndarray(FRAMES[n % 5], format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 10)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    assert seconds(stream_file.getvalue()) == pytest.approx(2.5, abs=0.05)


def test_a_long_header_counts_the_same() -> None:
    body = b"\1\0\0\0" + bytes(16) + struct.pack(">IQ", 1000, 3500) + bytes(80)
    mvhd = struct.pack(">I4s", len(body) + 8, b"mvhd") + body
    data = struct.pack(">I4s8s", 16, b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4s", len(mvhd) + 8, b"moov") + mvhd
    assert seconds(data) == 3.5


def test_a_frame_that_says_no_time_counts_as_it_does_elsewhere() -> None:
    stream = io.BytesIO()
    first, *rest = (Image.fromarray(frame) for frame in FRAMES)
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=0)
    assert seconds(stream.getvalue()) == pytest.approx(5 * ALONE)


def still(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(FRAMES[0]).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [still("GIF"), still("WEBP"), still("PNG"), b"hello", b"GIF89a", b"\0\0\0\x08ftypisom"]
)
def test_what_has_no_length_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="a whole clip that says how long it is") as refused:
        seconds(data)
    assert "\n" not in str(refused.value)


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=200)
def test_broken_files_are_refused_or_measured(name: str, data: st.DataObject) -> None:
    broken = bytearray(FILES[name][: data.draw(st.integers(16, len(FILES[name])))])
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        said = clip_seconds("clip", InputFile(sniff(FILES[name]), bytes(broken)))
    except InvalidInput:
        return
    assert 0 < said < float("inf")
