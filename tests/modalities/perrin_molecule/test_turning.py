"""A molecule that turns: seen from behind, its outline is the mirror image of that from the front."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageSequence
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.ndimage import binary_fill_holes

from perrin.clip_notes import read_gif
from perrin_molecule.turning import EACH, FRAMES, SHARE, SIDE, spheres, turning


@pytest.fixture(scope="module")
def gif() -> bytes:
    molecule = Chem.AddHs(Chem.MolFromSmiles("CC(F)CO"))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    return turning(molecule, {"perrin": "1", "seed": 3})


def test_it_comes_round_and_says_how_it_was_made(gif: bytes) -> None:
    frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(gif)))]
    picture = Image.open(io.BytesIO(gif))
    assert (len(frames), picture.info["duration"], picture.info["loop"], picture.size) == (
        FRAMES,
        EACH,
        0,
        (SIDE, SIDE),
    )
    assert json.loads(read_gif(gif) or "")["seed"] == 3
    outlines = [binary_fill_holes(frame < 250) for frame in frames]  # highlights are white
    for front, behind in zip(outlines[: FRAMES // 2], outlines[FRAMES // 2 :], strict=True):
        assert (front != behind[:, ::-1]).mean() < 0.01
    assert (outlines[0] != outlines[FRAMES // 4]).mean() > 0.02
    for outline in outlines:
        assert not outline[[0, -1]].any()
        assert not outline[:, [0, -1]].any()


def test_a_sphere_is_as_large_as_its_atom_and_hides_what_is_behind() -> None:
    one = spheres(np.zeros((1, 3)), ["C"], 4.0, 200)
    covered = (one < 250).any(-1).sum() * (8.0 / 200) ** 2
    assert covered == pytest.approx(np.pi * (1.7 * SHARE) ** 2, rel=0.02)
    behind = spheres(np.array([[0, 0, 0], [0, 0, -3.0]]), ["C", "O"], 4.0, 200)
    assert np.array_equal(behind, one)
