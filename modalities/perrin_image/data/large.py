"""The pack's own drawings again at 256x256, each with what the pack's way of drawing makes of it at 64x64.

The small picture is the large one after the pack's resampling (Lanczos on premultiplied alpha), so the two agree to a
fraction of a pixel. Recoloured copies are left out: at the edge of a shape they know no more than what they copy. A
record keeps its id, so what is held out of one pack is held out of the other.

The folder has pictures.npy, small.npy and records.jsonl, and is complete once report.json is there.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from perrin.errors import InvalidInput

from .pack import Record, open_pack, read_records
from .recipe import Progress, prepare, read_set, render, sources
from .render import SIZE, premultiplied, resize, straight
from .sets import SETS, Drawing

__all__ = ["FACTOR", "LARGE", "LargePack", "open_large", "prepare_large", "shrunk", "write_large"]

FACTOR = 4
"""How much larger."""

LARGE = FACTOR * SIZE


@dataclass(frozen=True)
class LargePack:
    """An open pack: `pictures` uint8 [N, 256, 256, 4] and `small` [N, 64, 64, 4], straight alpha, mapped from disk;
    `records` has N entries."""

    pictures: NDArray[np.uint8]
    small: NDArray[np.uint8]
    records: tuple[Record, ...]


def shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W, 4] at a quarter of its sides."""
    height, width = picture.shape[:2]
    return straight(resize(premultiplied(picture), (width // FACTOR, height // FACTOR)))


def prepare_large(cache: Path, progress: Progress) -> Path:
    """Build the pack under `cache`, or return it where it is there already; the small pack is made first.

    Raises:
        PerrinError: a source cannot be fetched or is not the pinned file.
    """
    folder = cache / f"pack-{LARGE}"
    if (folder / "report.json").exists():
        return folder
    wanted = {record.id: record for record in open_pack(prepare(cache, progress)).records if not record.recoloured}
    roots, vocabulary = sources(cache, progress)
    drawings: dict[str, Drawing] = {}
    for emoji_set in SETS:
        for drawing in read_set(emoji_set, roots, vocabulary, Counter()):
            if drawing.id in wanted:
                drawings[drawing.id] = drawing
    records = [record for name, record in wanted.items() if name in drawings]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        drawn = pool.map(_render, (drawings[record.id] for record in records), chunksize=32)
        return write_large(folder, drawn, records, progress)


def _render(drawing: Drawing) -> NDArray[np.uint8]:
    return render(drawing, LARGE)


def write_large(
    folder: Path, pictures: Iterable[NDArray[np.uint8]], records: Sequence[Record], progress: Progress
) -> Path:
    """Write `pictures`, uint8 [256, 256, 4] each and as many as `records`, and their small ones; the report last."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    count = len(records)
    large, small = (
        open_memmap(part / f"{name}.npy", "w+", np.uint8, (count, side, side, 4))
        for name, side in (("pictures", LARGE), ("small", SIZE))
    )
    for number, picture in enumerate(pictures):
        large[number], small[number] = picture, shrunk(picture)
        if number % 100 == 0:
            progress(number, count, f"drawing at {LARGE}")
    large.flush()
    small.flush()
    (part / "records.jsonl").write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
    (part / "report.json").write_text(json.dumps({"pictures": count}) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return folder


def open_large(folder: Path) -> LargePack:
    """Open a complete pack. Raises InvalidInput where the folder holds none."""
    if not (folder / "report.json").exists():
        raise InvalidInput("pack", str(folder), "a folder with report.json: run prepare_large() first")
    pictures, small = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pictures", "small"))
    return LargePack(pictures, small, read_records(folder))
