"""What the emoji packages hold, as drawings still to be rendered.

An entry keeps its set's own name; skin tones, letters, country flags and families of many people are left out here,
with the reason counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .lexicon import DROP_SUBGROUPS
from .synonyms import RENAMED
from .vocabulary import Concept, Vocabulary, squeeze, words_of

__all__ = ["SETS", "Drawing", "EmojiSet", "read_iconify", "read_webp"]


@dataclass(frozen=True)
class EmojiSet:
    """One style: the set's name in its package, the word captions use for it, its licence and author, its share of
    the sampling mass."""

    name: str
    style: str
    licence: str
    author: str
    share: float


SETS: tuple[EmojiSet, ...] = (
    EmojiSet("noto", "noto", "Apache-2.0", "Noto Emoji, (c) Google Inc.", 0.20),
    EmojiSet("fluent-emoji", "fluent", "MIT", "Fluent Emoji, (c) Microsoft Corporation", 0.15),
    EmojiSet("fluent-emoji-3d", "3d", "MIT", "Fluent Emoji 3D, (c) Microsoft Corporation, packaged by LobeHub", 0.15),
    EmojiSet("twemoji", "twemoji", "CC-BY-4.0", "Twemoji, (c) Twitter, Inc. and other contributors", 0.12),
    EmojiSet("fluent-emoji-flat", "flat", "MIT", "Fluent Emoji Flat, (c) Microsoft Corporation", 0.08),
    EmojiSet(
        "emojione",
        "emojione",
        "CC-BY-4.0",
        "EmojiOne 2.3, (c) Emoji One, as kept by EmojiTwo",
        0.08,
    ),
    EmojiSet("noto-v1", "blob", "Apache-2.0", "Noto Emoji v1 (blobs), (c) Google Inc.", 0.06),
    EmojiSet("fxemoji", "fx", "Apache-2.0", "FxEmojis, (c) Mozilla Foundation", 0.04),
    EmojiSet("streamline-emojis", "streamline", "CC-BY-4.0", "Streamline Emojis, (c) Streamline", 0.02),
    EmojiSet("openclipart", "clipart", "public domain", "Open Clip Art Library 0.18 and its contributors", 0.10),
)

_TONE = re.compile(r"skin-tone|-tone-?\d|tone[1-5]")
_FLUENT_TONE = re.compile(r"-(?:medium-light|medium-dark|light|medium|dark)$")
_TONE_CODE = re.compile(r"1f3f[b-f]", re.IGNORECASE)
_TEXT = re.compile(
    r"^(?:keycap|letter|digit|regional-indicator|tag|squared|flag-for|flag-[a-z-]+|[a-z]{2,3}flag|.*-button|japanese-.*|input-.*"
    r"|black-large-circle-letter|mahjong.*|m?regional.*)"
)
_FAMILY = re.compile(r"^(?:family|couplekiss|kiss|couple)(?:-with-heart)?-(?:man|woman|person|adult|boy|girl|one|two)")
_KEEP_FLAGS = {
    "chequered flag",
    "triangular flag",
    "crossed flags",
    "rainbow flag",
    "pirate flag",
    "white flag",
    "black flag",
}


@dataclass(frozen=True)
class Drawing:
    """One picture to be: `svg` text or the `file` of a raster image, what its set calls it, and the emoji it is
    (None: unknown)."""

    id: str
    set: EmojiSet
    names: tuple[str, ...]
    concept: Concept | None
    svg: str = ""
    file: str = ""


def _refused(name: str, concept: Concept | None, present: frozenset[str]) -> str | None:
    tone = _FLUENT_TONE.sub("", name)
    if _TONE.search(name) or (tone != name and tone in present):
        return "skin-tone variant"
    if _FAMILY.match(re.sub(r"[^a-z]+", "-", name)) or (
        concept is not None and concept.subkind == "family" and concept.code.count("-") > 1
    ):
        return "family of many people"
    if concept is not None:
        if concept.label in _KEEP_FLAGS:
            return None
        if concept.subkind in DROP_SUBGROUPS or concept.kind in {"flags", ""}:
            return "letter, digit or country flag"
        return None
    if name.startswith("flag"):
        return "letter, digit or country flag"
    if _TEXT.match(name) or re.search(r"(?:^\d|symbol|flag|sign)$", name):
        return "letter, digit or country flag"
    return None


def read_iconify(path: Path, emoji_set: EmojiSet, vocabulary: Vocabulary, dropped: Counter[str]) -> Iterator[Drawing]:
    """Drawings of one file of `@iconify/json`; what is left out is counted by reason in `dropped`."""
    data = json.loads(path.read_text())
    icons: dict[str, dict[str, object]] = data["icons"]
    codes: dict[str, str] = {}
    for code, name in data.get("chars", {}).items():
        codes.setdefault(name, code)
    others: dict[str, list[str]] = {}
    for alias, row in data.get("aliases", {}).items():
        if not (set(row) - {"parent"}):
            others.setdefault(row["parent"], []).append(alias)
            if alias in codes:
                codes.setdefault(row["parent"], codes[alias])
    present = frozenset(icons)
    renamed = {squeeze(name): label for name, label in RENAMED.items()}
    for name, row in icons.items():
        plain = re.sub(r"-\d$", "", name) if emoji_set.style == "streamline" else name
        aliases = others.get(name, [])
        concept = vocabulary.by_code(codes[name]) if name in codes else None
        for candidate in (plain, *aliases):
            concept = concept or vocabulary.by_name(candidate)
        if _TONE_CODE.search(codes.get(name, "")):
            dropped["skin-tone variant"] += 1
            continue
        if reason := _refused(plain, concept, present):
            dropped[reason] += 1
            continue
        width, height = row.get("width", data.get("width", 16)), row.get("height", data.get("height", 16))
        left, top = row.get("left", data.get("left", 0)), row.get("top", data.get("top", 0))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{row["body"]}</svg>'
        )
        if concept is None and (label := renamed.get(squeeze(plain))):
            concept, plain, aliases = vocabulary.by_name(label), label, []
        if concept is None and emoji_set.style == "fx":
            dropped["no name known"] += 1  # its names have no spaces and cannot be read
            continue
        names = (plain, *(alias for alias in aliases if not _TONE.search(alias)))
        if emoji_set.style == "fx" and concept is not None:
            names = (concept.label,)
        yield Drawing(f"{emoji_set.style}/{name}", emoji_set, tuple(words_of(n) for n in names), concept, svg=svg)


def read_webp(folder: Path, emoji_set: EmojiSet, vocabulary: Vocabulary, dropped: Counter[str]) -> Iterator[Drawing]:
    """Drawings of a folder of `<code points>.webp` files."""
    for path in sorted(folder.glob("*.webp")):
        concept = vocabulary.by_code(path.stem)
        if _TONE_CODE.search(path.stem):
            dropped["skin-tone variant"] += 1
        elif concept is None:
            dropped["no name known"] += 1
        elif reason := _refused(concept.label.replace(" ", "-"), concept, frozenset()):
            dropped[reason] += 1
        else:
            yield Drawing(f"{emoji_set.style}/{path.stem}", emoji_set, (concept.label,), concept, file=str(path))
