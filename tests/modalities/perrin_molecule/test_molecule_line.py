"""Molecules by the command line, without a platform."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from rdkit import Chem

from perrin.cli import main
from perrin.commands.inspect import read_metadata

LINE = ["generate", "molecule", "--count", "3", "--seed", "11", "--steps", "8", "--device", "cpu"]


@pytest.mark.parametrize("ending", ["sdf", "xyz", "smi", "png", "csv", "gif"])
def test_one_line_makes_a_file_of_each_kind(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"m.{ending}"
    assert main([*LINE, "--out", str(out)]) == 0, capsys.readouterr().err
    outs = [out] if ending != "gif" else [tmp_path / f"m-{number}.gif" for number in range(3)]
    assert capsys.readouterr().out.split() == [str(out) for out in outs]
    data = outs[0].read_bytes()
    if ending == "sdf":
        blocks = data.decode().split("$$$$\n")[:-1]
        assert all(Chem.MolFromMolBlock(block, sanitize=False) is not None for block in blocks)
        assert len(blocks) == 3
    if ending == "csv":
        assert [row["number"] for row in csv.DictReader(io.StringIO(data.decode()))] == ["1", "2", "3"]
    if ending == "png":
        with Image.open(out) as picture:
            assert picture.width == 3 * 220
        assert read_metadata(out)["parameters"]["seed"] == 11
    if ending == "xyz":
        assert data.decode().count("smiles=") == 3


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.sdf"
    assert main(["generate", "molecule", "--formula", "C60", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "3 to 29 atoms" in said
    assert "Traceback" not in said
    assert not out.exists()
