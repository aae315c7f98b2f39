"""Molecules as a job: what the platform makes is what this process makes, whoever shares the calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import perrin
from perrin.client import Client
from perrin.errors import InvalidInput
from perrin_orchestration import embedded

pytest.importorskip("rdkit")

FEW: dict[str, Any] = {"steps": 6, "seed": 5}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    settings = {"device": "cpu", "lease_seconds": 10.0, "min_free_mb": 1}
    with embedded.platform(home, **settings) as (url, key), Client(url, api_key=key) as client:
        yield client


def test_a_job_makes_what_this_process_makes(client: Client) -> None:
    here = perrin.load("molecule", device="cpu")(count=2, **FEW, strict=True)
    job = client.submit("molecule", count=2, **FEW, strict=True)
    job.wait(90)
    (artifact,) = job.artifacts
    assert artifact.record.media_type == "chemical/x-mdl-sdfile"
    assert artifact.bytes() == here.files[0].data
    assert artifact.metadata["parameters"]["sampler"] == "ddpm"


def test_what_is_wrong_is_said_before_there_is_a_job(client: Client) -> None:
    with pytest.raises(InvalidInput, match="range of the training data"):
        client.submit("molecule", gap=400.0)
