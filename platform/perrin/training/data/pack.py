"""A pack: what was decoded, as arrays on disk that are mapped and not read, so that training never waits for decoding.

::

    NAME.npy        [N, ...], or [total, ...] with NAME.first.npy (N + 1,) where items differ in length
    records.jsonl   N lines: name and captions
    report.json     written last: a folder without it is no pack. report.txt is the same for people

Exact duplicates are dropped by their bytes; near ones where the decoder gives a perceptual hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perrin.errors import InvalidInput, PerrinError
from perrin.training.data.report import Report
from perrin.training.data.sources import Item

__all__ = ["Decoded", "Near", "Pack", "Ragged", "Record", "open_pack", "pack"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decoded:
    """An item as arrays.

    Attributes:
        arrays: by name. An array of the same shape for every item is stacked; others are joined along their first axis.
        hash: 64 bits that are nearly the same for what looks nearly the same; or None.
    """

    arrays: Mapping[str, Array]
    hash: int | None = None


Decode = Callable[[bytes, Item], Decoded]
"""Raises `perrin.errors.PerrinError` or ValueError for what cannot be used, with the reason."""


@dataclass(frozen=True)
class Record:
    """What is known of one item."""

    name: str
    captions: tuple[str, ...]


class Ragged:
    """Items of different lengths, joined: ``ragged[i]`` is a view of item i."""

    def __init__(self, joined: Array, first: npt.NDArray[np.int64]) -> None:
        self.joined, self.first = joined, first

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, index: int) -> Array:
        part: Array = self.joined[self.first[index] : self.first[index + 1]]
        return part


@dataclass(frozen=True)
class Pack:
    """An open pack: each array, or `Ragged`, by name; and what is known of the items."""

    arrays: Mapping[str, Any]
    records: tuple[Record, ...]
    report: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.records)


class Near:
    """Finds hashes that differ in few bits from one seen before.

    Two hashes of 64 bits that differ in at most 3 agree in at least one of four quarters; only those are compared.
    """

    def __init__(self, bits: int = 3) -> None:
        self._bits = bits
        self._seen: list[dict[int, list[int]]] = [{}, {}, {}, {}]

    def seen(self, value: int) -> bool:
        """Whether one like it was seen; from now on this one was."""
        quarters = [(value >> (16 * i)) & 0xFFFF for i in range(4)]
        found = any(
            (other ^ value).bit_count() <= self._bits
            for table, quarter in zip(self._seen, quarters, strict=True)
            for other in table.get(quarter, ())
        )
        if not found:
            for table, quarter in zip(self._seen, quarters, strict=True):
                table.setdefault(quarter, []).append(value)
        return found


def pack(
    items: Iterable[Item],
    decode: Decode,
    folder: Path,
    report: Report,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Pack:
    """Decode ``items`` and write them into ``folder``; if it holds a pack already, that is opened.

    Raises:
        InvalidInput: nothing could be used; the message has the report.
    """
    if (folder / "report.json").exists():
        return open_pack(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, list[Array]] = {}
    records: list[Record] = []
    bytes_seen: set[bytes] = set()
    near = Near()
    for number, item in enumerate(items):
        progress(number, 0, "reading data")
        try:
            data = item.read()
            digest = hashlib.sha256(data).digest()
            if digest in bytes_seen:
                report.drop("the same bytes as another", item.name)
                continue
            bytes_seen.add(digest)
            decoded = decode(data, item)
        except (PerrinError, ValueError, OSError) as error:
            report.drop(_reason(error), item.name)
            continue
        if decoded.hash is not None and near.seen(decoded.hash):
            report.drop("nearly the same as another", item.name)
            continue
        if arrays and decoded.arrays.keys() != arrays.keys():
            raise InvalidInput("data", list(decoded.arrays), f"the arrays {list(arrays)} of every item")
        for name, array in decoded.arrays.items():
            arrays.setdefault(name, []).append(array)
        records.append(Record(item.name, item.captions))
    report.kept = len(records)
    if not records:
        raise InvalidInput("data.folder", "nothing usable", f"items that can be read. {report.text.strip()}")
    report.notes["captions an item"] = round(sum(len(r.captions) for r in records) / len(records), 2)
    for name, parts in arrays.items():
        _write(folder, name, parts)
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    for name, text in (
        ("records.jsonl", lines),
        ("report.txt", report.text),
        ("report.json", json.dumps(report.record, indent=1) + "\n"),
    ):
        part = folder / f"{name}.part"
        part.write_text(text)
        part.replace(folder / name)
    return open_pack(folder)


def open_pack(folder: Path) -> Pack:
    """Open what `pack` wrote; nothing is read but the records.

    Raises:
        InvalidInput: the folder holds no whole pack.
    """
    if not (folder / "report.json").exists():
        raise InvalidInput("pack", str(folder), "a folder with report.json, which is written last")
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    records = tuple(Record(row["name"], tuple(row["captions"])) for row in rows)
    arrays: dict[str, Any] = {}
    for path in sorted(folder.glob("*.npy")):
        if path.name.endswith(".first.npy"):
            continue
        mapped, first = np.load(path, mmap_mode="r"), path.with_suffix(".first.npy")
        arrays[path.stem] = Ragged(mapped, np.load(first)) if first.exists() else mapped
        if len(arrays[path.stem]) != len(records):
            raise InvalidInput(
                "pack", f"{path.name} of {len(arrays[path.stem])}", f"{len(records)} items; delete {folder}"
            )
    return Pack(arrays, records, json.loads((folder / "report.json").read_text()))


def _write(folder: Path, name: str, parts: list[Array]) -> None:
    alike = len({part.shape for part in parts}) == 1
    made = np.stack(parts) if alike else np.concatenate(parts)
    with (folder / f"{name}.npy.part").open("wb") as stream:
        np.save(stream, made)
    (folder / f"{name}.npy.part").replace(folder / f"{name}.npy")
    (folder / f"{name}.first.npy").unlink(missing_ok=True)
    if not alike:
        np.save(folder / f"{name}.first.npy", np.cumsum([0, *(len(part) for part in parts)]))


def _reason(error: Exception) -> str:
    return (next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:100]
