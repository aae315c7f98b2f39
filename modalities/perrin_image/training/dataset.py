"""The data pack as tensors, split into training and held-out pictures.

A picture is held out by the hash of its id (2%), together with its recoloured copies. Recoloured copies that would show
one of the test prompts' recombinations ("red rocket") are left out of training altogether.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import yaml

from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin.pictures import to_tensor
from perrin.training.data import PICTURES, Report, pack, read_source
from perrin.training.data.decoders import picture
from perrin_image.data import Record, attributions, open_pack, prepare
from perrin_image.data.pencil import pencil_attributions, prepare_pencil

__all__ = ["Pictures", "held_out", "load_pictures", "prompts", "to_tensor", "weights_of"]


@dataclass(frozen=True)
class Pictures:
    """Captioned pictures.

    Attributes:
        pixels: uint8 [N, 64, 64, 4], mapped from disk.
        records: N.
        train: indices to train on.
        held_out: indices never trained on.
        weights: sampling probability of each of ``train``.
        attributions: package, version, licence and line of what they were made from; of somebody's own, none.
    """

    pixels: npt.NDArray[np.uint8]
    records: tuple[Record, ...]
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    attributions: tuple[tuple[str, str, str, str], ...] = ()


def prompts(section: str | None = None) -> list[str]:
    """The committed test prompts, all 64 or those of one section."""
    text = (files("perrin_image") / "recipes" / "prompts-64.yaml").read_text()
    values = yaml.safe_load(text)
    sections = [section] if section else ["as_captioned", "reworded", "recombined"]
    return [prompt for name in sections for prompt in values[name]]


def load_pictures(
    folder: Path,
    progress: Progress,
    emphasis: Mapping[str, float] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Pictures:
    """Prepare the pack under ``folder`` if need be, and split it.

    Args:
        folder: cache of the data.
        progress: told how it goes.
        emphasis: factors on the sampling weight of whole styles, and under ``people`` of people.
        data: of the recipe. With ``folder``, somebody's own pictures instead of the project's: a folder with captions,
            or WebDataset shards; ``style`` is the label they are trained under, ``mirror`` whether they may be. With
            ``pencil``, drawings of the pack's again, see `perrin_image.data.pencil`. With ``styles``, only those.
    """
    emphasis, pencil = emphasis or {}, bool((data or {}).get("pencil", False))
    if data and data.get("folder"):
        return _own(folder, progress, data)
    styles = tuple((data or {}).get("styles", ()))
    pack = open_pack(prepare_pencil(folder, progress) if pencil else prepare(folder, progress, styles=styles))
    held = np.array([held_out(record) for record in pack.records])
    forbidden = [p.split(" ", 1) for p in prompts("recombined")]
    barred = np.array([r.recoloured and _shows(r, forbidden) for r in pack.records])
    train = np.flatnonzero(~held & ~barred)
    if not held.any() or not len(train):
        raise InvalidInput("pack", f"{len(held)} pictures", "more: some to train on, and some (2%) to hold out")
    weights = weights_of([pack.records[i] for i in train], emphasis)
    made_from = pencil_attributions() if pencil else attributions(styles)
    return Pictures(pack.pictures, pack.records, train, np.flatnonzero(held), weights, tuple(made_from))


def held_out(record: Record) -> bool:
    """Whether a picture and its recoloured copies are never trained on: one in fifty."""
    return crc32(record.id.split("@")[0].encode()) % 50 == 0


def weights_of(records: Sequence[Record], emphasis: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Sampling probabilities (N,) of pictures; ``emphasis`` as for `load_pictures`."""
    weights = np.array([_weight(record, emphasis) for record in records], np.float64)
    chances: npt.NDArray[np.float64] = weights / weights.sum()
    return chances


def _own(folder: Path, progress: Progress, data: Mapping[str, Any]) -> Pictures:
    """Pictures from a folder of somebody's own; every fiftieth is held out."""
    source = Path(str(data["folder"])).expanduser().resolve()
    stamp = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(source.rglob("*")) if p.is_file()]
    key = hashlib.sha256(f"{source} {stamp}".encode()).hexdigest()[:16]
    report = Report()
    made = pack(read_source(source, PICTURES, report), picture(64), folder / f"own-{key}", report, progress)
    style, mirror = str(data.get("style", "clipart")), bool(data.get("mirror", False))
    records = tuple(
        Record(
            id=record.name, source=source.name, style=style, licence="", name=_words(record.name),
            captions=record.captions or (_words(record.name),), group=record.name, colour=None, recoloured=False,
            mirror_ok=mirror, weight=1.0,
        )
        for record in made.records
    )  # fmt: skip
    held = np.arange(len(records)) % 50 == len(records) % 50 // 2 if len(records) > 1 else np.array([True])
    train = np.flatnonzero(~held) if len(records) > 1 else np.array([0])
    return Pictures(made.arrays["pixels"], records, train, np.flatnonzero(held), np.full(len(train), 1 / len(train)))


def _words(name: str) -> str:
    """What a file's name says."""
    return " ".join(re.sub(r"[\W_0-9]+", " ", Path(name).stem).split()).lower() or "picture"


PEOPLE = frozenset(
    [
        "man",
        "woman",
        "person",
        "people",
        "men",
        "women",
        "boy",
        "girl",
        "child",
        "adult",
        "couple",
        "family",
        "hand",
        "hands",
        "finger",
    ]
)


def _weight(record: Record, emphasis: Mapping[str, float]) -> float:
    people = emphasis.get("people", 1.0) if PEOPLE & set(record.name.replace("-", " ").split()) else 1.0
    return record.weight * emphasis.get(record.style, 1.0) * people


def _shows(record: Record, forbidden: Sequence[Sequence[str]]) -> bool:
    words = {word for caption in record.captions for word in caption.split()}
    return any(record.colour == colour and set(noun.split()) <= words for colour, noun in forbidden)
