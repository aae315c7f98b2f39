"""Furniture in Sweet Home 3D's catalogues: zips of OBJ files with materials, and a list of what they are.

The catalogue turns a model and gives it a size in centimetres; y is up and the front +z.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from perrin_shape.data.triangles import Triangles

__all__ = ["Catalogue", "Piece"]

TEXTURE = 32
"""Pixels on a side that a texture is scaled to."""

GREY = (180.0, 180.0, 180.0)


class Piece(NamedTuple):
    """A piece of furniture: its id, name, category, and where it is in the catalogue."""

    key: str
    name: str
    category: str
    file: str
    turn: tuple[float, ...]
    size: tuple[float, float, float]


class _Material(NamedTuple):
    colour: tuple[float, float, float]
    texture: str


class Catalogue:
    """One ``.sh3f`` file."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._zip = zipfile.ZipFile(path)
        self._names = {name.lower(): name for name in self._zip.namelist()}

    def pieces(self) -> Iterator[Piece]:
        """What is in it, in its order."""
        text = self._zip.read("PluginFurnitureCatalog.properties").decode("latin-1")
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
        values = dict(re.findall(r"^(\w+#\d+)=(.*?)\r?$", text, re.MULTILINE))
        number = 1
        while f"model#{number}" in values:
            turn = tuple(map(float, values.get(f"modelRotation#{number}", "1 0 0 0 1 0 0 0 1").split()))
            width, height, depth = (float(values[f"{name}#{number}"]) for name in ("width", "height", "depth"))
            yield Piece(
                values[f"id#{number}"].strip(),
                values[f"name#{number}"].strip(),
                values[f"category#{number}"].strip(),
                unquote(values[f"model#{number}"].strip().lstrip("/")),
                turn,
                (width, height, depth),
            )
            number += 1

    def read(self, piece: Piece) -> bytes:
        """Its OBJ file."""
        return self._zip.read(self._names[piece.file.lower()])

    def triangles(self, piece: Piece) -> Triangles:
        """Its triangles, turned and of its size.

        Raises:
            ValueError: it has none.
        """
        shape = _read_obj(self.read(piece).decode("latin-1"))
        if not len(shape.faces):
            raise ValueError("a model without faces")
        folder = str(PurePosixPath(piece.file).parent)
        materials: dict[str, _Material] = {}
        for library in shape.libraries:
            data = self._member(f"{folder}/{library}")
            materials |= {} if data is None else _read_materials(data.decode("latin-1"))
        corners = shape.points[shape.faces] @ np.array(piece.turn, np.float32).reshape(3, 3).T
        low, high = corners.min((0, 1)), corners.max((0, 1))
        corners = (corners - low) * (np.array(piece.size, np.float32) / np.maximum(high - low, 1e-6))
        colours = np.empty((len(corners), 3), np.float32)
        texture = np.full(len(corners), -1)
        pictures: list[NDArray[np.uint8]] = []
        for number, name in enumerate(shape.names):
            mine = shape.material == number
            material = materials.get(name, _Material(GREY, ""))
            colours[mine] = material.colour
            picture = self._picture(f"{folder}/{material.texture}") if material.texture else None
            if picture is not None:
                colours[mine] = 255
                texture[mine] = len(pictures)
                pictures.append(picture)
        return Triangles(corners.astype(np.float32), colours, shape.places[shape.at], texture, tuple(pictures))

    def _member(self, name: str) -> bytes | None:
        found = self._names.get(unquote(name).replace("\\", "/").lower())
        return None if found is None else self._zip.read(found)

    def _picture(self, name: str) -> NDArray[np.uint8] | None:
        from PIL import Image

        data = self._member(name)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGBA").resize((TEXTURE, TEXTURE), Image.Resampling.BOX))


class _Obj(NamedTuple):
    points: NDArray[np.float32]
    places: NDArray[np.float32]
    faces: NDArray[np.int64]
    at: NDArray[np.int64]
    material: NDArray[np.int64]
    names: list[str]
    libraries: list[str]


def _read_obj(text: str) -> _Obj:
    points: list[list[float]] = []
    places: list[list[float]] = [[0.0, 0.0]]
    faces: list[list[int]] = []
    at: list[list[int]] = []
    material: list[int] = []
    numbers: dict[str, int] = {"": 0}
    libraries: list[str] = []
    current = 0
    for line in text.replace("\\\n", " ").splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "v":
            points.append(list(map(float, rest.split()[:3])))
        elif kind == "vt":
            places.append(list(map(float, rest.split()[:2])))
        elif kind == "usemtl":
            current = numbers.setdefault(rest.strip(), len(numbers))
        elif kind == "mtllib":
            libraries.append(rest.strip())
        elif kind == "f":
            corners = [word.split("/") for word in rest.split()]
            v = [_index(c[0], len(points)) for c in corners]
            t = [_index(c[1], len(places) - 1) + 1 if len(c) > 1 and c[1] else 0 for c in corners]
            for k in range(1, len(v) - 1):
                faces.append([v[0], v[k], v[k + 1]])
                at.append([t[0], t[k], t[k + 1]])
                material.append(current)
    return _Obj(
        np.array(points, np.float32).reshape(-1, 3),
        np.array(places, np.float32),
        np.array(faces, np.int64).reshape(-1, 3),
        np.array(at, np.int64).reshape(-1, 3),
        np.array(material, np.int64),
        list(numbers),
        libraries,
    )


def _index(word: str, count: int) -> int:
    number = int(word)
    return number - 1 if number > 0 else count + number


def _read_materials(text: str) -> Mapping[str, _Material]:
    found: dict[str, _Material] = {}
    name = ""
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "newmtl":
            name = rest.strip()
            found[name] = _Material(GREY, "")
        elif kind == "Kd" and name:
            r, g, b = (255 * float(word) for word in rest.split()[:3])
            found[name] = found[name]._replace(colour=(r, g, b))
        elif kind == "map_Kd" and name:
            found[name] = found[name]._replace(texture=rest.split(" -")[0].strip())
    return found
