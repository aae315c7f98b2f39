r"""Building-brick parts in LDraw's format: lines of references, triangles and quadrilaterals.

A reference (line type 1) places another file by a matrix. Colour 16 is the colour of whatever refers to it; a part
itself is drawn in one studio colour. LDraw's y points down and its front to -z; here y is up and the front +z.

References:
    LDraw.org, File Format 1.0.2, line types 1, 3 and 4; Colour Definition Language Extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perrin_shape.data.triangles import Triangles

__all__ = ["STUDIO", "Part", "Parts"]

STUDIO = (201, 60, 50)
"""The colour, sRGB, of what a part leaves to whoever uses it."""

MAIN = 16
DEEPEST = 16
LEFT_OUT = ("Sticker", "Minifig", "Figure", "~", "_", "=")
"""Beginnings of titles: decals, people, what was moved, and parts that only repeat another in a colour."""

_TURN = np.array([1, -1, -1], np.float32)


class Part(NamedTuple):
    """The file of a part, and its title."""

    file: Path
    title: str


class _Piece(NamedTuple):
    corners: NDArray[np.float32]
    colours: NDArray[np.int64]


class Parts:
    """A library of parts.

    Args:
        folder: with ``parts/``, ``p/`` and ``LDConfig.ldr``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {}
        for place in ("p/48", "p", "parts/s", "parts"):
            inside = place.removeprefix("p/").removeprefix("parts/") if "/" in place else ""
            for path in (folder / place).glob("*.dat"):
                self._files[f"{inside}/{path.name}".lstrip("/").lower()] = path
        text = (folder / "LDConfig.ldr").read_text(errors="replace")
        found = re.findall(r"!COLOUR\s+\S+\s+CODE\s+(\d+)\s+VALUE\s+#([0-9A-Fa-f]{6})", text)
        self._palette = {int(code): tuple(bytes.fromhex(value)) for code, value in found}
        self._palette[MAIN] = STUDIO
        self._piece = lru_cache(maxsize=4096)(self._read)

    def parts(self) -> Iterator[Part]:
        """Parts under the Creative Commons licence, with something to call them by, in the order of their files."""
        for path in sorted((self._folder / "parts").glob("*.dat")):
            head = path.read_text(errors="replace")[:2000]
            title = head.partition("\n")[0].removeprefix("0").strip()
            if title and not title.startswith(LEFT_OUT) and "under CCAL version 2.0" in head:
                yield Part(path, title)

    def triangles(self, name: str) -> Triangles:
        """The triangles of a part by the name of its file.

        Raises:
            ValueError: it has none, or refers to a file that is not there.
        """
        piece = self._piece(name.lower(), 0)
        if not len(piece.corners):
            raise ValueError("a part without faces")
        colours = np.array([self._palette.get(int(code), STUDIO) for code in piece.colours], np.float32)
        return Triangles(piece.corners * _TURN, colours)

    def _read(self, name: str, depth: int) -> _Piece:
        if depth > DEEPEST:
            raise ValueError("references too deep")
        path = self._files.get(name)
        if path is None:
            raise ValueError(f"refers to a missing file, {name}")
        corners: list[NDArray[np.float32]] = []
        colours: list[NDArray[np.int64]] = []
        faces: list[list[float]] = []
        codes: list[int] = []
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) >= 15 and words[0] == "1":
                inner = self._piece(" ".join(words[14:]).replace("\\", "/").lower(), depth + 1)
                x, y, z, *matrix = map(float, words[2:14])
                turned = inner.corners @ np.array(matrix, np.float32).reshape(3, 3).T + np.array([x, y, z], np.float32)
                corners.append(turned.astype(np.float32))
                colours.append(np.where(inner.colours == MAIN, _code(words[1]), inner.colours))
            elif len(words) >= 11 and words[0] == "3":
                faces.append(list(map(float, words[2:11])))
                codes.append(_code(words[1]))
            elif len(words) >= 14 and words[0] == "4":
                v = list(map(float, words[2:14]))
                faces += [v[:9], v[:3] + v[6:12]]
                codes += [_code(words[1])] * 2
        corners.append(np.array(faces, np.float32).reshape(-1, 3, 3))
        colours.append(np.array(codes, np.int64))
        return _Piece(np.concatenate(corners), np.concatenate(colours))


def _code(word: str) -> int:
    return int(word, 0)
