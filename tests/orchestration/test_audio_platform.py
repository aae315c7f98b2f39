"""Sounds as a job: what the platform makes is what this process makes, and a file that is given arrives."""

from __future__ import annotations

from typing import Any

import pytest

import perrin
from perrin.client import Client
from perrin.errors import InvalidInput

FEW: dict[str, Any] = {"steps": 4, "seed": 5}


def test_a_job_makes_what_this_process_makes(client: Client) -> None:
    here = perrin.load("audio", device="cpu")("violin, note A4", seconds=0.5, **FEW, strict=True)
    job = client.submit("audio", prompt="violin, note A4", seconds=0.5, **FEW, strict=True)
    job.wait(90)
    (artifact,) = job.artifacts
    assert artifact.record.media_type == "audio/wav"
    assert artifact.bytes() == here.files[0].data
    assert artifact.metadata["parameters"]["vocoder"] == "own"


def test_a_sound_that_a_job_made_is_gone_on_from(client: Client) -> None:
    first = client.submit("audio", prompt="violin, note A4", seconds=0.5, **FEW)
    first.wait(90)
    job = client.submit("audio", prompt="violin, note A4", audio=first.artifacts[0], extend=0.5, **FEW)
    job.wait(90)
    assert job.artifacts[0].bytes()[44:1044] == first.artifacts[0].bytes()[44:1044]


def test_what_is_wrong_is_said_before_there_is_a_job(client: Client) -> None:
    with pytest.raises(InvalidInput, match="what to hear"):
        client.submit("audio")
    with pytest.raises(InvalidInput, match="a note such as"):
        client.submit("audio", prompt="violin", note="H9")
