"""Where data lie: folders with captions beside them, and WebDataset shards.

Captions of ``cat.png`` may stand in ``cat.txt`` (a line each), or in one table for the folder: ``captions`` or
``metadata`` with the ending .csv or .jsonl, whose column ``file_name`` (or ``file``) names the file and whose ``text``
(or ``caption``) is one caption, or in JSON a list of them. Every other column is kept.
A shard is a tar file in which ``0001.png``, ``0001.txt`` and ``0001.json`` belong together.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from perrin.errors import InvalidInput
from perrin.training.data.report import Report

__all__ = [
    "AUDIO",
    "MOLECULES",
    "PICTURES",
    "SHAPES",
    "Item",
    "read_folder",
    "read_molecules",
    "read_shards",
    "read_source",
]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
AUDIO = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff"})
SHAPES = frozenset({".ply", ".obj", ".stl", ".off", ".glb"})
MOLECULES = frozenset({".sdf", ".mol", ".xyz", ".csv", ".smi"})

TABLES = ("captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl")
MOST_BYTES = 1 << 30
"""No single item of a shard is larger."""


@dataclass(frozen=True)
class Item:
    """One file, not read yet.

    Attributes:
        name: its path inside the source.
        captions: what is said of it, best first; may be empty.
        read: its bytes.
        extra: the other columns of its row.
    """

    name: str
    captions: tuple[str, ...]
    read: Callable[[], bytes]
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_source(path: Path, endings: frozenset[str], report: Report) -> Iterator[Item]:
    """`read_folder` of a folder, or `read_shards` of a tar file or a folder of them.

    Raises:
        InvalidInput: there is no such folder or file, or nothing of this kind in it.
    """
    if path.suffix == ".tar" and path.is_file():
        return read_shards([path], endings, report)
    if not path.is_dir():
        raise InvalidInput("data.folder", str(path), "a folder, or a WebDataset shard (.tar), that can be read")
    shards = sorted(path.glob("*.tar"))
    return read_shards(shards, endings, report) if shards else read_folder(path, endings, report)


def read_folder(folder: Path, endings: frozenset[str], report: Report) -> Iterator[Item]:
    """Every file under ``folder`` with one of ``endings``, by name, with its captions.

    Links are left out, and so are hidden files.

    Raises:
        InvalidInput: there is none; or a table of captions cannot be read.
    """
    table = _table(folder)
    found = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in endings or path.name in TABLES or path.name.startswith("."):
            continue
        if path.is_symlink() or not path.is_file():
            report.drop("a link", name)
            continue
        found += 1
        report.read += 1
        captions, extra = table.get(name, table.get(path.name, ((), {})))
        beside = path.with_suffix(".txt")
        if not captions and beside.is_file():
            captions = _lines(beside.read_text(errors="replace"))
        yield Item(name, captions, path.read_bytes, extra)
    if not found:
        raise InvalidInput(
            "data.folder", str(folder), f"a folder with files of these kinds: {' '.join(sorted(endings))}"
        )


def read_shards(shards: Sequence[Path], endings: frozenset[str], report: Report) -> Iterator[Item]:
    """Every sample of WebDataset shards, in their order.

    Raises:
        InvalidInput: a shard is broken.
    """
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                yield from _samples(archive, shard.name, endings, report)
        except (tarfile.TarError, EOFError) as error:
            raise InvalidInput("data.folder", shard.name, f"a whole tar file ({error})") from None


def _samples(archive: tarfile.TarFile, shard: str, endings: frozenset[str], report: Report) -> Iterator[Item]:
    group: dict[str, bytes] = {}
    key = ""
    for member in archive:
        if not member.isfile() or member.size > MOST_BYTES:
            continue
        path = PurePosixPath(member.name)
        stem, _, ending = path.name.partition(".")
        here = (path.parent / stem).as_posix()
        if here != key and group:
            yield from _sample(f"{shard}/{key}", group, endings, report)
            group = {}
        key = here
        stream = archive.extractfile(member)
        group[f".{ending.lower()}"] = stream.read() if stream is not None else b""
    if group:
        yield from _sample(f"{shard}/{key}", group, endings, report)


def _sample(name: str, group: Mapping[str, bytes], endings: frozenset[str], report: Report) -> Iterator[Item]:
    data = next(((ending, body) for ending, body in group.items() if ending in endings), None)
    report.read += 1
    if data is None:
        report.drop("no file of this kind in its sample", name)
        return
    extra: dict[str, Any] = {}
    captions = _lines(group[".txt"].decode(errors="replace")) if ".txt" in group else ()
    if ".json" in group:
        try:
            found = json.loads(group[".json"])
        except ValueError:
            found = {}
        extra = dict(found) if isinstance(found, dict) else {}
        captions = captions or _captions(extra)
    yield Item(name + data[0], captions, lambda: data[1], extra)


def read_molecules(items: Iterable[Item], report: Report) -> Iterator[Item]:
    """``items``, with every molecule of an SDF file and every row of a .csv or .smi table an item of its own.

    A table of SMILES has a column ``smiles``; its other columns are kept, as are an SDF's data fields.
    """
    for item in items:
        ending = PurePosixPath(item.name).suffix.lower()
        if ending not in (".sdf", ".csv", ".smi"):
            yield item
            continue
        text = item.read().decode(errors="replace")
        report.read -= 1  # the file itself is none
        if ending == ".sdf":
            parts = [part for part in text.replace("\r\n", "\n").split("$$$$\n") if part.strip()]
            rows = [(part, _fields(part), ".mol") for part in parts]
        elif ending == ".csv":
            table = csv.DictReader(io.StringIO(text))
            column = next((name for name in table.fieldnames or () if name.lower() == "smiles"), None)
            if column is None:
                raise InvalidInput("data.folder", item.name, "a table with a column smiles")
            rows = [(row[column] or "", row, ".smiles") for row in table]
        else:
            rows = [(line.split()[0], {}, ".smiles") for line in text.splitlines() if line.strip()]
        for number, (body, extra, kind) in enumerate(rows):
            report.read += 1
            yield Item(f"{item.name}#{number}{kind}", item.captions, body.encode, {**item.extra, **extra})


def _fields(part: str) -> dict[str, str]:
    """The data fields of one molecule of an SDF file."""
    lines = part.splitlines()
    return {
        line.split("<", 1)[1].split(">", 1)[0]: lines[number + 1].strip()
        for number, line in enumerate(lines[:-1])
        if line.startswith(">") and "<" in line
    }


# --- captions ---------------------------------------------------------------------------------------------------------


def _table(folder: Path) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
    """Captions and other columns by file, from the folder's table."""
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        return {}
    text = path.read_text(errors="replace")
    try:
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else list(csv.DictReader(io.StringIO(text)))
        )
    except (ValueError, csv.Error) as error:
        raise InvalidInput("data.folder", path.name, f"a table that can be read ({error})") from None
    found: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("file_name") or row.get("file") if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise InvalidInput("data.folder", f"{path.name}, row {number}", "a column file_name, and text or caption")
        captions = _captions(row)
        before, extra = found.get(name, ((), {}))
        found[name] = (tuple(dict.fromkeys((*before, *captions))), {**extra, **row})
    return found


def _captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    value = next((row[key] for key in ("text", "caption", "captions", "prompt") if row.get(key)), ())
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(clean for item in values if (clean := " ".join(str(item).split())))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))
