"""From five pinned packages to one data pack: fetch, read, render, drop duplicates, caption, recolour, weigh, write.

Each style's renderings are kept in the cache, so an interrupted run goes on where it stopped. Every random choice is
seeded by the picture's id.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perrin.errors import InvalidInput
from perrin.training.data.archives import unpacked

from .captions import captions_for, colour_words_in, mirror_ok
from .clipart import picture_fault, read_clipart
from .colours import dominant_colour
from .copies import copies_of
from .duplicates import first_of_each
from .fetch import SOURCES, source
from .pack import Record, write_pack
from .render import SIZE, render_image, render_svg
from .sets import SETS, Drawing, EmojiSet, read_iconify, read_webp
from .vocabulary import Vocabulary, load_vocabulary

__all__ = ["RECIPE", "Progress", "attributions", "prepare", "read_set", "render", "sources"]

#: Raised with every change of what a rendering looks like; cached renderings of another number are ignored.
RECIPE = 3
#: A small set does not reach its share by showing the same pictures again and again.
MOST_WEIGHT = 2.0
#: Joined emoji are mostly the man and the woman of each role; at 64 pixels they say little more than the person does.
GENDER_SHARE = 0.5

Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, label: str) -> None:
    pass


def attributions(styles: Sequence[str] = ()) -> list[tuple[str, str, str, str]]:
    """Package, version, licence and attribution line of everything a model trained on the pack, or on some of its
    styles, has seen."""
    rows = []
    for item in SETS:
        if styles and item.style not in styles:
            continue
        package = {"3d": "@lobehub/fluent-emoji-3d", "clipart": "openclipart-svg"}.get(item.style, "@iconify/json")
        rows.append((f"{package} ({item.name})", source(package).version, item.licence, item.author))
    rows.append(
        (
            "emojibase-data",
            source("emojibase-data").version,
            "MIT",
            "Emojibase, (c) Miles Johnson; CLDR names (c) Unicode, Inc.",
        )
    )
    rows.append(("emojilib", source("emojilib").version, "MIT", "emojilib, (c) Mu-An Chiou"))
    return rows


@dataclass(frozen=True)
class _Style:
    drawings: list[Drawing]
    pictures: NDArray[np.uint8]
    dropped: Counter[str]
    read: int


def prepare(cache: Path, progress: Progress = _silent, *, pack: Path | None = None, styles: Sequence[str] = ()) -> Path:
    """Build the pack, or return it where it is there already.

    Args:
        cache: folder of downloads, unpacked packages and renderings.
        progress: called as (done, total, label).
        pack: where the pack goes; by default `cache / "pack"`, with the styles behind it where there are some.
        styles: only these; by default all.

    Returns:
        The pack's folder.

    Raises:
        PerrinError: a source cannot be fetched or is not the pinned file.
    """
    folder = pack or cache / "-".join(["pack", *styles])
    if (folder / "report.json").exists():
        return folder
    roots, vocabulary = sources(cache, progress)
    chosen = [emoji_set for emoji_set in SETS if not styles or emoji_set.style in styles]
    drawn = [_style(emoji_set, roots, vocabulary, cache / "rendered", progress) for emoji_set in chosen]
    pictures, records, report = _assemble(chosen, drawn, vocabulary, progress)
    return write_pack(folder, pictures, records, report, _text(report))


def sources(cache: Path, progress: Progress = _silent) -> tuple[dict[str, Path], Vocabulary]:
    """Fetch and unpack the packages into `cache`: the folder of each, and the vocabulary made of two of them."""
    roots: dict[str, Path] = {}
    for done, item in enumerate(SOURCES):
        progress(done, len(SOURCES), f"fetching {item.package}")
        roots[item.package] = unpacked(item, cache)
    names, words = roots["emojibase-data"] / "package/en", roots["emojilib"] / "package/dist/emoji-en-US.json"
    return roots, load_vocabulary(names, words)


def read_set(
    emoji_set: EmojiSet, roots: dict[str, Path], vocabulary: Vocabulary, dropped: Counter[str]
) -> Iterator[Drawing]:
    """Drawings of one set, from the packages' folders; what is left out is counted by reason in `dropped`."""
    if emoji_set.style == "3d":
        return read_webp(roots["@lobehub/fluent-emoji-3d"] / "package/assets", emoji_set, vocabulary, dropped)
    if emoji_set.style == "clipart":
        return read_clipart(roots["openclipart-svg"] / "usr/share/openclipart/svg", emoji_set, vocabulary, dropped)
    return read_iconify(roots["@iconify/json"] / f"package/json/{emoji_set.name}.json", emoji_set, vocabulary, dropped)


def _style(
    emoji_set: EmojiSet, roots: dict[str, Path], vocabulary: Vocabulary, cache: Path, progress: Progress
) -> _Style:
    dropped: Counter[str] = Counter()
    drawings = list(read_set(emoji_set, roots, vocabulary, dropped))
    read = len(drawings) + dropped.total()
    rendered, faults = _render_all(emoji_set.style, drawings, cache, progress)
    keep: list[int] = []
    for index, fault in enumerate(faults):
        reason = fault or (picture_fault(rendered[index]) if emoji_set.style == "clipart" else None)
        if reason:
            dropped[reason] += 1
        else:
            keep.append(index)
    firsts, merged = first_of_each(rendered[keep])
    dropped["duplicate picture"] += len(keep) - len(firsts)
    kept = []
    for position in firsts:
        drawing = drawings[keep[position]]
        others = [drawings[keep[p]] for p in merged.get(position, [])]
        names = [*drawing.names, *(o.concept.label if o.concept else o.names[0] for o in others)]
        kept.append(replace(drawing, names=tuple(dict.fromkeys(names))))
    return _Style(kept, rendered[[keep[p] for p in firsts]], dropped, read)


def render(drawing: Drawing, size: int = SIZE) -> NDArray[np.uint8]:
    """The picture of a drawing, uint8 [size, size, 4]. Raises InvalidInput where it cannot be drawn."""
    if drawing.file:
        return render_image(Path(drawing.file).read_bytes(), size=size)
    share = 0.0 if drawing.set.style == "clipart" else 0.6
    return render_svg(drawing.svg, smallest_share=share, size=size)


def _render_one(drawing: Drawing) -> tuple[NDArray[np.uint8] | None, str]:
    try:
        return render(drawing), ""
    except InvalidInput:
        return None, "cannot be drawn"


def _render_all(
    style: str, drawings: Sequence[Drawing], cache: Path, progress: Progress
) -> tuple[NDArray[np.uint8], list[str]]:
    digest = hashlib.sha256(f"{RECIPE}\n".encode())
    for drawing in drawings:
        digest.update(f"{drawing.id}\n{drawing.svg}\n".encode())
    path = cache / f"{style}-{digest.hexdigest()[:16]}.npz"
    if path.exists():
        with np.load(path) as held:
            return held["pictures"], [str(fault) for fault in held["faults"]]
    pictures = np.zeros((len(drawings), 64, 64, 4), np.uint8)
    faults: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for index, (picture, fault) in enumerate(pool.map(_render_one, drawings, chunksize=32)):
            faults.append(fault)
            if picture is not None:
                pictures[index] = picture
            if index % 100 == 0:
                progress(index, len(drawings), f"rendering {style}")
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, pictures=pictures, faults=np.array(faults, dtype=str))
    part.replace(path)
    return pictures, faults


def _assemble(
    sets: Sequence[EmojiSet], styles: Sequence[_Style], vocabulary: Vocabulary, progress: Progress
) -> tuple[NDArray[np.uint8], list[Record], dict[str, Any]]:
    total = sum(len(style.drawings) for style in styles)
    pictures: list[NDArray[np.uint8]] = []
    records: list[Record] = []
    rows = {}
    for emoji_set, style in zip(sets, styles, strict=True):
        shares = [GENDER_SHARE if d.concept and "-200D-" in d.concept.code else 1.0 for d in style.drawings]
        unit = min(MOST_WEIGHT, emoji_set.share * total / max(1.0, sum(shares)))
        copies = 0
        for number, (drawing, picture) in enumerate(zip(style.drawings, style.pictures, strict=True)):
            if number % 100 == 0:
                progress(number, len(style.drawings), f"captioning {emoji_set.style}")
            record = _record(drawing, picture, unit * shares[number], vocabulary)
            if not record.captions:
                style.dropped["no caption"] += 1
                continue
            pictures.append(picture)
            records.append(record)
            for copy, copy_record in copies_of(drawing, picture, record):
                pictures.append(copy)
                records.append(copy_record)
                copies += 1
        rows[emoji_set.style] = {
            "set": emoji_set.name,
            "licence": emoji_set.licence,
            "read": style.read,
            "kept": len(style.drawings) - style.dropped["no caption"],
            "recoloured": copies,
            "dropped": dict(sorted(style.dropped.items())),
        }
    licences: Counter[str] = Counter()
    for record in records:
        licences[record.licence] += 1
    report = {
        "pictures": len(records),
        "concepts": len({record.group for record in records}),
        "styles": rows,
        "licences": dict(licences),
        "sources": {item.package: {"version": item.version, "sha256": item.sha256} for item in SOURCES},
        "attributions": attributions([emoji_set.style for emoji_set in sets]),
    }
    return np.stack(pictures), records, report


def _record(drawing: Drawing, picture: NDArray[np.uint8], weight: float, vocabulary: Vocabulary) -> Record:
    colour = dominant_colour(picture)
    concept = drawing.concept
    # A clipart heart may have any colour; only the sets mean the red one.
    told = None if concept and drawing.set.style == "clipart" and colour_words_in(concept.label) else concept
    captions = captions_for(told, drawing.names, colour, vocabulary)
    return Record(
        id=drawing.id,
        source=drawing.set.name,
        style=drawing.set.style,
        licence=drawing.set.licence,
        name=concept.label if concept else drawing.names[0],
        captions=tuple(captions),
        group=(concept.label if concept else drawing.names[0]).replace(" ", "-"),
        colour=colour,
        recoloured=False,
        mirror_ok=mirror_ok(captions, concept),
        weight=round(weight, 5),
    )


def _text(report: dict[str, Any]) -> str:
    lines = [f"{report['pictures']} pictures of {report['concepts']} concepts", ""]
    for style, row in report["styles"].items():
        lines.append(
            f"{style} ({row['set']}, {row['licence']}): {row['read']} read, {row['kept']} kept, "
            f"{row['recoloured']} recoloured"
        )
        lines += [f"  dropped {count}: {reason}" for reason, count in row["dropped"].items() if count]
    lines += ["", "by licence:", *(f"  {licence}: {count}" for licence, count in report["licences"].items())]
    lines += ["", "attributions:", *(f"  {p} {v}, {lic}: {line}" for p, v, lic, line in report["attributions"])]
    return "\n".join(lines) + "\n"
