"""From a file's bytes to arrays: pictures, sounds, molecules, shapes. Each needs the package that reads its kind."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput, NotInstalled
from perrin.training.data.pack import Decoded
from perrin.training.data.sources import Item

__all__ = ["audio", "difference_hash", "molecule", "picture", "shape"]

MOST_PIXELS = 1 << 26

SMILES = ".smiles"
"""Ending of the name of an item that is a line of a table."""


def difference_hash(gray: npt.NDArray[Any]) -> int:
    """64 bits: whether each of 8 x 8 cells is brighter than the one to its right. ``gray`` is (8, 9)."""
    bits = (gray[:, 1:] > gray[:, :-1]).flatten()
    return int(sum(1 << i for i, bit in enumerate(bits) if bit))


def picture(side: int, least: int = 16) -> Callable[[bytes, Item], Decoded]:
    """A decoder to ``pixels``, uint8 (side, side, 4): upright, whole, centred on nothing, straight alpha.

    Args:
        side: of the square that the picture is fitted into.
        least: a picture with a shorter side is dropped.
    """

    def decode(data: bytes, item: Item) -> Decoded:
        from PIL import Image, ImageOps

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image: Any = Image.open(io.BytesIO(data))
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError("more pixels than a picture has")
                image = ImageOps.exif_transpose(image).convert("RGBA")
        except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"no picture that can be read ({type(error).__name__})") from None
        if min(image.size) < least:
            raise ValueError(f"a side shorter than {least} pixels")
        white = Image.new("RGBA", image.size, "white")
        gray = Image.alpha_composite(white, image).convert("L").resize((9, 8), Image.Resampling.BOX)
        fitted = ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS)
        square = Image.new("RGBA", (side, side))
        square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
        return Decoded({"pixels": np.asarray(square)}, difference_hash(np.asarray(gray)))

    return decode


def audio(rate: int, seconds: float) -> Callable[[bytes, Item], Decoded]:
    """A decoder to ``samples``, float16 (T,), mono at ``rate``, at most ``seconds`` long."""

    def decode(data: bytes, item: Item) -> Decoded:
        try:
            import soundfile
        except ImportError:
            raise NotInstalled("reading sounds", "train") from None
        from math import gcd

        try:
            samples, found = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"no sound that can be read ({error})") from None
        mono = samples.mean(1)
        if not len(mono) or float(np.abs(mono).max()) < 1e-4:
            raise ValueError("silence")
        if found != rate:
            from scipy.signal import resample_poly

            common = gcd(found, rate)
            mono = resample_poly(mono, rate // common, found // common)
        return Decoded({"samples": mono[: int(rate * seconds)].astype(np.float16)})

    return decode


def molecule(data: bytes, item: Item) -> Decoded:
    """To ``elements`` uint8 (N,), ``positions`` float32 (N, 3) in angstrom, ``bonds`` uint8 (M, 3).

    A bond is two atoms and twice its order. SDF and MOL are read by RDKit, with their bonds; XYZ has none; SMILES are
    given hydrogens and a conformer (ETKDG).
    """
    if PurePosixPath(item.name).suffix.lower() == ".xyz":
        return _xyz(data.decode(errors="replace"))
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        raise NotInstalled("reading molecules", "train") from None
    getattr(RDLogger, "DisableLog")("rdApp.*")  # noqa: B009 - its stubs do not know it
    text = data.decode(errors="replace")
    made: Any = _embedded(text) if item.name.endswith(SMILES) else Chem.MolFromMolBlock(text, removeHs=False)
    if made is None or not made.GetNumConformers():
        raise ValueError("no molecule with coordinates that RDKit accepts")
    bonds = [
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), round(bond.GetBondTypeAsDouble() * 2))
        for bond in made.GetBonds()
    ]
    return Decoded(
        {
            "elements": np.array([atom.GetAtomicNum() for atom in made.GetAtoms()], np.uint8),
            "positions": np.asarray(made.GetConformer().GetPositions(), np.float32),
            "bonds": np.array(bonds, np.uint8).reshape(-1, 3),
        }
    )


def _embedded(smiles: str) -> Any:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    made = Chem.MolFromSmiles(smiles.strip())
    if made is None:
        return None
    made = Chem.AddHs(made)
    return made if rdDistGeom.EmbedMolecule(made, randomSeed=7) == 0 else None


def _xyz(text: str) -> Decoded:
    try:
        from rdkit import Chem
    except ImportError:
        raise NotInstalled("reading molecules", "train") from None
    lines = text.splitlines()
    try:
        count = int(lines[0])
        rows = [line.split()[:4] for line in lines[2 : 2 + count]]
        table = Chem.GetPeriodicTable()
        elements = np.array([table.GetAtomicNumber(row[0]) for row in rows], np.uint8)
        positions = np.array([[float(value) for value in row[1:]] for row in rows], np.float32)
        if positions.shape != (count, 3) or not count:
            raise ValueError
    except (ValueError, IndexError, RuntimeError):
        raise ValueError("no XYZ file: a count, a comment, then element x y z a line") from None
    return Decoded({"elements": elements, "positions": positions, "bonds": np.zeros((0, 3), np.uint8)})


def shape(points: int) -> Callable[[bytes, Item], Decoded]:
    """A decoder to ``points``, float32 (points, 3), of the surface, centred, the farthest at distance one."""
    if points < 1:
        raise InvalidInput("points", points, "at least 1")

    def decode(data: bytes, item: Item) -> Decoded:
        try:
            import trimesh
        except ImportError:
            raise NotInstalled("reading shapes", "run") from None
        kind = PurePosixPath(item.name).suffix.lower().lstrip(".")
        try:
            made: Any = trimesh.load(io.BytesIO(data), file_type=kind, force=None)
        except Exception as error:  # its readers raise anything for a broken file
            raise ValueError(f"no shape that can be read ({type(error).__name__})") from None
        if isinstance(made, trimesh.Scene):
            made = made.to_geometry()
        seed = int.from_bytes(item.name.encode()[-4:], "little")
        if isinstance(made, trimesh.Trimesh) and len(made.faces):
            found, _ = trimesh.sample.sample_surface(made, points, seed=seed)
        elif len(getattr(made, "vertices", ())) >= 1:
            chosen = np.random.default_rng(seed).integers(0, len(made.vertices), points)
            found = np.asarray(made.vertices)[chosen]
        else:
            raise ValueError("a shape without a surface")
        centred = np.asarray(found, np.float64) - np.asarray(found).mean(0)
        reach = float(np.linalg.norm(centred, axis=1).max())
        if not np.isfinite(reach) or reach < 1e-9:
            raise ValueError("a shape of no size")
        return Decoded({"points": (centred / reach).astype(np.float32)})

    return decode
