"""Every format carries how it was made, the same bytes for the same picture, and `perrin inspect` reads it back."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import perrin
from perrin.commands.inspect import read_metadata
from perrin.errors import InvalidInput, NotFound
from perrin_image.writing import write

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
TYPES = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize("ending", TYPES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(prompt=TEXTS, note=st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False) | st.none(), max_size=3))
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, prompt: str, note: dict[str, Any]) -> None:
    metadata = {"perrin": "1", "parameters": {"prompt": prompt.replace("\0", "")}, "note": note}
    data = write(PIXELS[..., :3], TYPES[ending], metadata)
    assert data == write(PIXELS[..., :3], TYPES[ending], metadata)
    (tmp_path / "file").write_bytes(data)
    assert read_metadata(tmp_path / "file") == metadata


def test_png_and_webp_keep_every_pixel_and_jpeg_nearly() -> None:
    smooth = np.asarray(Image.fromarray(PIXELS[:3, :4, :3]).resize((30, 20), Image.Resampling.BICUBIC))
    for ending, wanted in (("png", PIXELS), ("webp", smooth), ("png", smooth)):
        assert (np.asarray(Image.open(io.BytesIO(write(wanted, TYPES[ending], {})))) == wanted).all()
    shape = PIXELS.copy()
    shape[shape[..., 3] == 0] = 0
    again = np.asarray(Image.open(io.BytesIO(write(shape, "image/webp", {}))))
    assert (again == shape).all()
    jpeg = np.asarray(Image.open(io.BytesIO(write(smooth, "image/jpeg", {}))))
    assert abs(jpeg.astype(int) - smooth).max() < 16


def test_viewers_find_the_prompt() -> None:
    data = write(PIXELS[..., :3], "image/jpeg", {"perrin": "1", "parameters": {"prompt": "a <red> & blue fish"}})
    packet = Image.open(io.BytesIO(data)).info["xmp"].decode()
    assert '<rdf:li xml:lang="x-default">a &lt;red&gt; &amp; blue fish</rdf:li>' in packet
    from xml.etree import ElementTree

    root = ElementTree.fromstring(packet.encode())
    (made,) = root.iter("{urn:perrin}made")
    assert json.loads(made.text or "")["parameters"]["prompt"] == "a <red> & blue fish"


def test_every_format_of_the_model_says_how_it_was_made(tmp_path: Path) -> None:
    made = perrin.load("image")("blue fish", seed=3, steps=3, sampler="ddim")[0]
    found = [read_metadata(made.save(tmp_path / f"fish.{ending}")) for ending in ("png", "webp", "jpg", "jpeg")]
    for metadata in found:
        assert metadata == made.metadata
    with pytest.raises(InvalidInput, match="format: got 'jpg', wanted png or webp"):
        perrin.load("image")("blue fish", steps=3, sampler="ddim", background="transparent")[0].save(tmp_path / "a.jpg")


@pytest.mark.parametrize("ending", TYPES)
def test_files_of_others_and_broken_ones(tmp_path: Path, ending: str) -> None:
    whole = write(PIXELS[..., :3], TYPES[ending], {"a": 1})
    stream = io.BytesIO()
    Image.fromarray(PIXELS[..., :3]).save(stream, {"jpg": "JPEG"}.get(ending, ending))
    path = tmp_path / f"file.{ending}"
    path.write_bytes(stream.getvalue())
    with pytest.raises(NotFound, match="nothing in it says how Perrin made it"):
        read_metadata(path)
    for length in range(14, len(whole) - 1, 41):
        path.write_bytes(whole[:length])
        with suppress(InvalidInput):
            assert read_metadata(path) == {"a": 1}
    path.write_bytes(whole[:60])
    with pytest.raises(InvalidInput, match=r"a whole (PNG|WebP|JPEG): it is cut short"):
        read_metadata(path)
