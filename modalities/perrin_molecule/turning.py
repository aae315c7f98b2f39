"""A molecule that turns: its atoms as spheres of their van der Waals radii, once round in a GIF that repeats.

References:
    Bondi (1964), "van der Waals Volumes and Radii". Corey and Pauling (1953), "Molecular Models of Amino Acids,
    Peptides, and Proteins", for the spheres and their colours.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from perrin.clip_notes import with_gif

__all__ = ["spheres", "turning"]

SIDE, FRAMES, EACH = 256, 24, 80
"""Pixels of a frame, frames of a turn, milliseconds of each."""

FINER = 2
"""Each frame is drawn so many times as large, and averaged."""

SHARE = 0.9
"""Of the radii, so that neighbours are told apart."""

ATOMS = {
    "H": (1.10, (235, 235, 235)),
    "C": (1.70, (90, 90, 90)),
    "N": (1.55, (60, 90, 220)),
    "O": (1.52, (220, 50, 40)),
    "F": (1.47, (90, 180, 60)),
}
"""Radius in angstrom, and colour."""

LIGHT = np.array([-0.5, 0.5, 0.7])
"""From the upper left, in front."""


def spheres(
    places: npt.NDArray[np.float64], symbols: list[str], reach: float, side: int = SIDE
) -> npt.NDArray[np.uint8]:
    """uint8 (side, side, 3): spheres seen along z, on white.

    Args:
        places: (N, 3) in angstrom.
        symbols: element of each.
        reach: angstrom from the middle to the edge of the picture.
        side: pixels.
    """
    wide = side * FINER
    scale = wide / (2 * reach)
    across = (np.arange(wide) + 0.5 - wide / 2) / scale
    depth = np.full((wide, wide), -np.inf)
    canvas = np.full((wide, wide, 3), 255.0)
    for (x, y, z), symbol in zip(places, symbols, strict=True):
        radius, colour = ATOMS[symbol][0] * SHARE, np.array(ATOMS[symbol][1])
        columns = slice(*np.searchsorted(across, (x - radius, x + radius)))
        rows = slice(*np.searchsorted(across, (-y - radius, -y + radius)))
        right, up = np.meshgrid(across[columns] - x, -across[rows] - y)
        height = np.sqrt((radius**2 - right**2 - up**2).clip(0))
        seen = (height > 0) & (z + height > depth[rows, columns])
        lit = (np.stack([right, up, height], -1) @ LIGHT / radius).clip(0)[..., None]
        shade = (colour * (0.35 + 0.65 * lit) + 60 * lit**20).clip(0, 255)
        canvas[rows, columns][seen], depth[rows, columns][seen] = shade[seen], (z + height)[seen]
    fine = canvas.reshape(side, FINER, side, FINER, 3)
    return np.asarray(fine.mean((1, 3)).round(), np.uint8)


def turning(molecule: Any, metadata: Mapping[str, Any]) -> bytes:
    """A GIF of ``molecule`` that turns about its longest axis, which stands upright."""
    from PIL import Image

    places = molecule.GetConformer().GetPositions()
    places = places - places.mean(0)
    axes = np.linalg.svd(places)[2][[1, 0, 2]]
    axes[2] *= np.linalg.det(axes)  # a rotation, no mirror image
    places = places @ axes.T
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    around = max(float(np.linalg.norm(places[:, [0, 2]], axis=1).max()), float(np.abs(places[:, 1]).max()))
    pictures = []
    for angle in 2 * np.pi * np.arange(FRAMES) / FRAMES:
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pictures.append(spheres(places @ turn.T, symbols, around + 2))
    palette = Image.fromarray(np.concatenate(pictures, 1)).quantize(255, Image.Quantize.MEDIANCUT)
    palette.putpalette([*(palette.getpalette() or [])[: 3 * 255], 255, 255, 255])
    frames = [Image.fromarray(one).quantize(256, palette=palette, dither=Image.Dither.NONE) for one in pictures]
    for frame, one in zip(frames, pictures, strict=True):
        frame.paste(255, mask=Image.fromarray((one == 255).all(-1)))  # white stays white
    stream = io.BytesIO()
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=EACH, loop=0, disposal=1, optimize=False
    )
    return with_gif(stream.getvalue(), metadata, "", f"Perrin {metadata.get('perrin', '')}".strip())
