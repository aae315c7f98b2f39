"""A data pack: pictures.npy, records.jsonl, report.json and report.txt in one folder, complete once report.json is
there.

`pictures[i]` belongs to line i of the records; both are only ever written as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perrin.errors import InvalidInput

__all__ = ["Pack", "Record", "open_pack", "read_records", "write_pack"]


@dataclass(frozen=True)
class Record:
    """What is known of one picture.

    Attributes:
        id: unique; set and name, for a recoloured copy followed by "@colour".
        source: name of its set; style: the word for the set's look; licence: its licence.
        name: what it shows, in words.
        captions: best first, lower case.
        group: concept shared by the same thing in all sets.
        colour: dominant colour word, or None.
        recoloured: whether its colour was changed by us; its captions then carry the new one.
        mirror_ok: whether its mirror image is as true.
        weight: sampling weight; the originals' mean is 1.
    """

    id: str
    source: str
    style: str
    licence: str
    name: str
    captions: tuple[str, ...]
    group: str
    colour: str | None
    recoloured: bool
    mirror_ok: bool
    weight: float


@dataclass(frozen=True)
class Pack:
    """An open pack: `pictures` is uint8 [N, 64, 64, 4] straight alpha, mapped from disk; `records` has N entries."""

    pictures: NDArray[np.uint8]
    records: tuple[Record, ...]


def write_pack(
    folder: Path, pictures: NDArray[np.uint8], records: Sequence[Record], report: dict[str, Any], text: str
) -> Path:
    """Write a pack into `folder`, the report last. Raises InvalidInput where pictures and records do not agree."""
    if (
        pictures.ndim != 4
        or pictures.shape[1:] != (64, 64, 4)
        or pictures.dtype != np.uint8
        or len(pictures) != len(records)
    ):
        got = f"{pictures.dtype} {pictures.shape} and {len(records)} records"
        raise InvalidInput("pictures", got, "uint8 [N, 64, 64, 4] and N records")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").unlink(missing_ok=True)
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with (folder / "pictures.npy.part").open("wb") as file:
        np.save(file, pictures)
    (folder / "pictures.npy.part").replace(folder / "pictures.npy")
    for name, content in (
        ("records.jsonl", lines),
        ("report.txt", text),
        ("report.json", json.dumps(report, indent=1) + "\n"),
    ):
        (folder / f"{name}.part").write_text(content)
        (folder / f"{name}.part").replace(folder / name)
    return folder


def open_pack(folder: Path) -> Pack:
    """Open a complete pack. Raises InvalidInput where the folder holds none."""
    if not (folder / "report.json").exists():
        raise InvalidInput("pack", str(folder), "a folder with report.json: run prepare() first")
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    records = read_records(folder)
    if len(pictures) != len(records):
        got = f"{folder}: {len(pictures)} pictures, {len(records)} records"
        raise InvalidInput("pack", got, "as many records as pictures: remove the folder and run prepare() again")
    return Pack(pictures, records)


def read_records(folder: Path) -> tuple[Record, ...]:
    """The records of a pack's folder."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return tuple(Record(**{**row, "captions": tuple(row["captions"])}) for row in rows)
