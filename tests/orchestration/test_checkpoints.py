"""A checkpoint as a model like any other: added, then asked for through HTTP, made by a worker's engine process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import perrin
from perrin.client import Client
from perrin.models.checkpoints import add_checkpoint
from perrin_orchestration import embedded

tiny = pytest.importorskip("tiny_checkpoints")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")


def test_jobs_by_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny.sd(tmp_path / "base")
    card = add_checkpoint(tmp_path / "base")
    asked = {"prompt": "a red apple", "model": "base", "size": 32, "steps": 4, "negative": "ugly"}
    with embedded.platform(tmp_path / "home", device="cpu", min_free_mb=1) as (url, key), Client(url, key) as client:
        (image,) = (found for found in client.modalities() if found.name == "image")
        field = image.parameters["properties"]
        assert "base" in field["model"]["choices"]
        assert "40x24" in field["size"]["choices"]
        jobs = [client.submit("image", seed=seed, **asked) for seed in (3, 4)]
        for job in jobs:
            job.wait()
        files = [job.artifacts[0].bytes() for job in jobs]
    pictures = [Image.open(io.BytesIO(data)) for data in files]
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert files[0] != files[1]
    here = perrin.load("image", model="base", device="cpu")(seed=3, **asked)
    assert card.sha256 in pictures[0].text["perrin"]
    assert here.files[0].data == files[0]  # the same engine, the same bytes
