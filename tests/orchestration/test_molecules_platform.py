"""Molecules as a job: what the platform makes is what this process makes, whoever shares the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perrin
from perrin.client import Client
from perrin.errors import InvalidInput, PerrinError

pytest.importorskip("rdkit")

FEW: dict[str, Any] = {"steps": 6, "seed": 5}


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


FURAN = """
  5  5  0  0  0  0  0  0  0  0999 V2000
    0.5849   -0.8407    0.0945 C   0  0
   -0.8043   -0.6352   -0.0867 C   0  0
   -0.9854    0.7271   -0.1425 C   0  0
    0.2035    1.3697   -0.0073 O   0  0
    1.1544    0.4107    0.1365 C   0  0
  1  2  1  0
  2  3  2  0
  3  4  1  0
  4  5  1  0
  5  1  2  0
M  END
"""


def test_a_fragment_is_uploaded_and_kept_and_so_is_an_artifact(client: Client, tmp_path: Path) -> None:
    """A job completes a file; the next one gets what the first one made, which is a whole molecule, and says so."""
    (tmp_path / "furan.sdf").write_text(f"furan\n  Perrin{'':12}3D\n{FURAN}$$$$\n")
    job = client.submit("molecule", fragment=tmp_path / "furan.sdf", **FEW)
    job.wait(90)
    (artifact,) = job.artifacts
    first = artifact.bytes().decode().splitlines()[4:9]
    assert [line[:31] for line in first] == [line[:31] for line in FURAN.splitlines()[2:7]]
    again = client.submit("molecule", fragment=artifact.id, **FEW)
    with pytest.raises(PerrinError, match=r"whole molecule|bonds of order"):
        again.wait(90)
