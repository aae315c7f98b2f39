"""From the pinned sources to a pack: points with normals and colours, and surfels, of parts and furniture.

The pack has ``points`` (N, 4096, 3) float16, ``normals`` (N, 4096, 3) int8 (of 127), ``colours`` (N, 4096, 3) uint8,
``label`` (N,), ``source`` (N,) 0: a part, 1: furniture, ``index`` and ``values`` (see `perrin_shape.surfels`), of
different lengths. Records have the caption first, then its shorter forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from perrin.modality import Progress
from perrin.training.data.pack import Decoded, Pack, open_pack, pack
from perrin.training.data.report import Report
from perrin.training.data.sources import Item
from perrin_shape.captions import CLASSES, class_of, plain, short
from perrin_shape.data.fetch import furniture_folder, parts_folder
from perrin_shape.data.furniture import Catalogue, Piece
from perrin_shape.data.parts import Part, Parts
from perrin_shape.data.triangles import Triangles, seen
from perrin_shape.surfels import surfels_of

__all__ = ["POINTS", "held_captions", "held_out", "load_shapes"]

POINTS = 4096
"""Points that are kept of a shape."""


@lru_cache(maxsize=1)
def held_captions() -> frozenset[str]:
    """Captions that no shape is trained under."""
    path = Path(__file__).parent.parent / "recipes" / "held-out.yaml"
    return frozenset(yaml.safe_load(path.read_text()))


def held_out(pack: Pack) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(N,) of a pack: which shapes are never trained on, because a form of their caption is held out."""
    held = held_captions()
    return np.array([not held.isdisjoint(record.captions[:2]) for record in pack.records])


def load_shapes(folder: Path, progress: Progress) -> Pack:
    """The pack, below ``folder``; made there the first time, in about ten minutes."""
    target = folder / "shapes"
    if (target / "report.json").exists():
        return open_pack(target)
    parts = Parts(parts_folder(folder, progress))
    catalogues = [Catalogue(path) for path in sorted(furniture_folder(folder, progress).glob("*.sh3f"))]
    items = [*_of_parts(parts), *_of_furniture(catalogues)]
    return pack(items, _decode, target, Report(read=len(items)), lambda n, _, what: progress(n, len(items), what))


def _forms(title: str) -> tuple[str, ...]:
    caption = plain(title)
    named = class_of(caption)
    forms = (caption, short(caption), *((named,) if named != CLASSES[-1] else ()))
    return tuple(form for form in forms if form)


def _of_parts(parts: Parts) -> Iterator[Item]:
    def triangles(part: Part) -> Triangles:
        return parts.triangles(part.file.name)

    for part in parts.parts():
        yield Item(
            part.file.stem, _forms(part.title), part.file.read_bytes, {"of": lambda p=part: triangles(p), "source": 0}
        )


def _of_furniture(catalogues: list[Catalogue]) -> Iterator[Item]:
    def item(catalogue: Catalogue, piece: Piece) -> Item:
        return Item(
            piece.key,
            _forms(piece.name),
            lambda: catalogue.read(piece) + repr(piece).encode(),
            {"of": lambda: catalogue.triangles(piece), "source": 1},
        )

    for catalogue in catalogues:
        for piece in catalogue.pieces():
            yield item(catalogue, piece)


def _decode(data: bytes, item: Item) -> Decoded:
    extra: Any = item.extra
    found = seen(extra["of"]())
    surfels = surfels_of(found.points, found.normals, found.colours, found.area)
    chosen = np.random.default_rng(1).permutation(len(found.points))[:POINTS]
    if len(chosen) < POINTS:
        chosen = np.resize(chosen, POINTS)
    return Decoded(
        {
            "points": found.points[chosen].astype(np.float16),
            "normals": (found.normals[chosen] * 127).round().astype(np.int8),
            "colours": found.colours[chosen],
            "label": np.asarray(CLASSES.index(class_of(item.captions[0])), np.int16),
            "source": np.asarray(extra["source"], np.int8),
            "area": np.asarray(found.area * len(found.points), np.float32),
            "index": surfels.index.astype(np.int32),
            "values": surfels.values.astype(np.float16),
        }
    )
