"""A checkpoint that does not fit: its weights stay in their files, and the result is the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perrin
from perrin.engine import Driver, Engine, Loaded, Request
from perrin.modality import validate
from perrin.models import weight_bytes
from perrin.models.checkpoints import add_checkpoint
from perrin.plugins import modality

tiny = pytest.importorskip("tiny_checkpoints")
pytest.importorskip("diffusers")


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_the_same_from_files_as_from_memory(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    getattr(tiny, family)(tmp_path / "base")
    card = add_checkpoint(tmp_path / "base")
    asked = {"prompt": "a red apple", "size": 32, "steps": 3, "seed": 5}
    whole = perrin.load("image", model="base", device="cpu")(**asked)
    monkeypatch.setenv("PERRIN_MEMORY_MB", "1")
    face = modality("image")
    parameters = validate(face, {"model": "base", **asked}).resolved(card)
    events: list[object] = []
    assert weight_bytes(card) > 1 << 17
    driver = Driver(Engine("cpu", memory=1 << 16))
    (ticket,) = driver.submit([Request("a", "image", parameters.model_dump(), "png")], events.append)
    files = ticket.wait().files
    loaded = [event for event in events if isinstance(event, Loaded)]
    assert [(event.offloaded, event.bytes) for event in loaded] == [(True, 0)]
    assert files[0].data[-2000:] == whole.files[0].data[-2000:]
    assert np.asarray(whole[0].value).shape == (32, 32, 3)
