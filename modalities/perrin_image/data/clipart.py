"""The usable part of the Open Clip Art Library: pictures of things, under a title a person would type.

Most of its 8,121 files are icon themes, generated stars, maps, flags and cards; folders are chosen by hand, titles
must be made of known words, and the drawing must be compact, visible and not too busy.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .clipart_words import ENGLISH, MISLEADING, REJECTED, TRANSLATIONS
from .colours import COLOURS, to_oklch
from .lexicon import NEVER, word_set
from .sets import Drawing, EmojiSet
from .vocabulary import Vocabulary, squeeze, words_of

__all__ = ["picture_fault", "read_clipart", "title_of"]

#: Folders whose files are pictures of things.
FOLDERS = (
    *(
        "animals",
        "food",
        "plants",
        "buildings",
        "transportation/vehicles",
        "transportation/boating",
        "recreation/music",
    ),
    *("recreation/sports", "recreation/toys", "recreation/holiday", "recreation/party", "recreation/games/chess"),
    *("recreation/art", "tools", "containers", "electronics", "education", "office", "computer/hardware"),
    *(
        "people/clothing",
        "people/smilies",
        "people/bodypart",
        "signs_and_symbols/weather",
        "geography/astronomy",
        "science",
    ),
)
#: Folders of which only the files directly inside are taken.
FLAT_FOLDERS = ("transportation", "recreation", "recreation/games", "people", "computer", "unsorted", "decorations")

_KINDS = frozenset({"animals-nature", "food-drink", "travel-places", "objects", "activities"})
_COPIED_TITLE = re.compile(r"cliparts?\b|^sallite$|etiquette icons|^icon$|^people$|^sport$", re.IGNORECASE)
_AUTHOR = re.compile(
    r"_(?:architett?o?|archit?|arc|ganson|linda|nicu|jean|gerald|benji|matthew|anton|patricia|frances?c?o?|olivier)(?:_|$).*"
)
_NOISE = word_set(
    """
    the by simple icon icons part collection theme drawn hand illustration drawing image picture contour sketch
    outline silhouette basic pattern new final version colored coloured color colour cartoon stylized stylised
    stilizzata vector little small large another example generic various lightly shaded con col e su in da del
    della nella and
    """
)
_REFUSE = word_set(
    """
    map maps logo flag flags border frame banner stick text font template pantyhose gift-certificate diagram
    blueprint
    """
)


def title_of(svg: str, path: str, vocabulary: Vocabulary) -> str | None:
    """The title in known English words, or None where it says nothing.

    Titles such as "Clipart by X" were copied between files; there the file name speaks.
    """
    found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", svg, re.DOTALL)
    title = html.unescape(found.group(1)).strip() if found else ""
    stem = _AUTHOR.sub("", Path(path).stem.lower())
    for text in (stem,) if not title or _COPIED_TITLE.search(title) else (title, stem):
        name = _english(text, vocabulary)
        if name is not None:
            return name or None
    return None


def _english(text: str, vocabulary: Vocabulary) -> str | None:
    """The text in English; "" where it must not be used, None where it is not understood."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    raw = [word for word in re.findall(r"[a-z]+", words_of(text)) if len(word) > 1]
    if (_REFUSE | NEVER).intersection(raw):
        return ""
    raw = [word for word in raw if word not in _NOISE]
    words = " ".join(TRANSLATIONS.get(word, word) for word in raw).split()
    words = [w for i, w in enumerate(words) if w not in words[:i]]
    while words and words[0] in {"of", "on", "with", "to"}:
        words.pop(0)
    while words and words[-1] in {"of", "on", "with", "to"}:
        words.pop()
    content = [word for word in words if word not in {"of", "on", "with", "to"}]
    if not 1 <= len(content) <= 4 or not all(_known(word, vocabulary) for word in content):
        return None
    if MISLEADING.intersection(content) or set(content) <= {*COLOURS}:
        return None
    colours = [word for word in words if word in COLOURS]
    return " ".join([*colours, *(word for word in words if word not in COLOURS)])


def _known(word: str, vocabulary: Vocabulary) -> bool:
    known = vocabulary.words | ENGLISH | set(COLOURS)
    return len(word) > 2 and (word in known or (word.endswith("s") and word[:-1] in known))


def read_clipart(root: Path, clip_set: EmojiSet, vocabulary: Vocabulary, dropped: Counter[str]) -> Iterator[Drawing]:
    """Drawings of the unpacked library under `root`; what is left out is counted by reason in `dropped`."""
    for path in sorted(root.rglob("*.svg")):
        folder = path.parent.relative_to(root).as_posix()
        if not (folder in FLAT_FOLDERS or any(folder == f or folder.startswith(f + "/") for f in FOLDERS)):
            dropped["folder of themes, maps, flags, stars or cards"] += 1
            continue
        svg = path.read_text(encoding="utf-8", errors="replace")
        if path.stem in REJECTED:
            dropped["looked at and found unfit"] += 1
            continue
        if "<image" in svg or "<text" in svg or len(svg) > 400_000:
            dropped["text, raster image or too complex"] += 1
            continue
        if "publicdomain" not in svg.lower():
            dropped["no public-domain mark"] += 1
            continue
        name = title_of(svg, path.name, vocabulary)
        if name is None:
            dropped["no meaningful title"] += 1
            continue
        concept = vocabulary.by_name(name)
        if concept is not None and (
            concept.kind not in _KINDS or squeeze(concept.label.removesuffix(" face")) != squeeze(name)
        ):
            concept = None
        yield Drawing(f"clipart/{folder}/{path.stem}", clip_set, (name,), concept, svg=svg)


def picture_fault(pixels: NDArray[np.uint8]) -> str | None:
    """What is wrong with a clipart picture uint8 [64, 64, 4], or None where nothing is."""
    opaque = pixels[..., 3] >= 128
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    if opaque.mean() < 0.10 or len(rows) < 2 or len(columns) < 2:
        return "near-empty"
    height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    box = opaque[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if box.mean() > 0.985 and box[:2, :2].all() and box[-2:, -2:].all() and box[:2, -2:].all() and box[-2:, :2].all():
        return "has a background"
    if max(height, width) > 2.2 * min(height, width):
        return "extreme shape"
    lch = to_oklch(pixels[..., :3])
    light = lch[opaque, 0]
    if light.mean() < 0.25 or light.std() < 0.02:
        return "dark or flat"
    if opaque.sum() < 0.35 * height * width:
        return "thin lines"
    if (lch[opaque, 1] > 0.04).mean() < 0.10 and (light > 0.93).mean() + (light < 0.25).mean() > 0.55:
        return "line drawing"
    inside = opaque[:, 1:] & opaque[:, :-1]
    if np.abs(np.diff(lch[..., 0], axis=1))[inside].mean() > 0.085:
        return "too busy"
    return None
