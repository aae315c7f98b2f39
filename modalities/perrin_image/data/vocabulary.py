"""Every name an emoji goes by leads to one concept: name -> code point -> CLDR label.

The sets name the same picture differently ("automobile", "red-car", "redcar"). All names known for a code point (CLDR
label, six short-code dialects, emojilib, the Unicode character name) are squeezed to their letters and digits and
looked up in one table.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Concept", "Vocabulary", "load_vocabulary", "squeeze", "words_of"]

_DIALECTS = ("cldr", "emojibase", "github", "iamcal", "joypixels", "emojibase-legacy")


@dataclass(frozen=True)
class Concept:
    """One emoji, whatever set draws it.

    Attributes:
        code: code points in hexadecimal, joined by "-", without variation selectors.
        label: CLDR short name, lower case.
        tags: CLDR keywords, then those of emojilib.
        names: other names, spelled with spaces, the most trusted first.
        kind: emojibase group, such as "animals-nature"; subkind: its subgroup.
    """

    code: str
    label: str
    tags: tuple[str, ...]
    names: tuple[str, ...]
    kind: str
    subkind: str


@dataclass(frozen=True)
class Vocabulary:
    """Concepts by code, codes by squeezed name, and all words that appear in labels and keywords."""

    concepts: dict[str, Concept]
    codes: dict[str, str]
    words: frozenset[str]

    def by_code(self, code: str) -> Concept | None:
        """The concept of a code such as "1f468-200d-1f3a8" or "2764-FE0F", or None."""
        return self.concepts.get(plain_code(code))

    def by_name(self, name: str) -> Concept | None:
        """The concept that goes by this name in any dialect, or None."""
        squeezed = squeeze(name)
        for candidate in (squeezed, squeezed.removesuffix("sign"), squeezed.removesuffix("face"), squeezed + "face"):
            if candidate in self.codes:
                return self.concepts[self.codes[candidate]]
        return None


def plain_code(code: str) -> str:
    """Upper-case code points without variation selectors: "2764-fe0f" -> "2764"."""
    return "-".join(part for part in code.upper().split("-") if part not in ("FE0F", "FE0E"))


def words_of(name: str) -> str:
    """A name as words: "christmas-tree_2" -> "christmas tree 2"."""
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[\s_\-]+", " ", name).strip().lower()


def squeeze(name: str) -> str:
    """Only the lower-case letters and digits of a name."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())


def load_vocabulary(emojibase: Path, emojilib: Path) -> Vocabulary:
    """Read the unpacked packages.

    Args:
        emojibase: folder holding data.json, messages.json and shortcodes/.
        emojilib: file mapping an emoji to its keywords, the first one being its name.
    """
    data = json.loads((emojibase / "data.json").read_text())
    messages = json.loads((emojibase / "messages.json").read_text())
    kinds = {row["order"]: row["key"] for row in messages["groups"]}
    subkinds = {row["order"]: row["key"] for row in messages["subgroups"]}
    library = {_code_of(symbol): words for symbol, words in json.loads(emojilib.read_text()).items()}
    dialects = [_dialect(emojibase / "shortcodes" / f"{name}.json") for name in _DIALECTS]
    concepts: dict[str, Concept] = {}
    for row in data:
        code = plain_code(row["hexcode"])
        keywords = library.get(code, [])
        names: list[str] = []
        for dialect in dialects:
            names += dialect.get(code, [])
        names += keywords[:1]
        if len(row["emoji"].rstrip("\ufe0f")) == 1:
            names.append(unicodedata.name(row["emoji"][0], ""))
        tags = [*row.get("tags", []), *keywords[1:]]
        concepts[code] = Concept(
            code=code,
            label=_label(row["label"]),
            tags=tuple(dict.fromkeys(words_of(tag) for tag in tags if re.fullmatch(r"[A-Za-z][A-Za-z _'-]+", tag))),
            names=tuple(dict.fromkeys(words_of(name) for name in names if name)),
            kind=kinds.get(row.get("group", -1), ""),
            subkind=subkinds.get(row.get("subgroup", -1), ""),
        )
    words = {
        word
        for concept in concepts.values()
        if concept.kind not in {"flags", ""} and concept.subkind not in {"alphanum", "keycap"}
        for text in (concept.label, *concept.tags)
        for word in words_of(text).split()
    }
    return Vocabulary(concepts, _table(concepts), frozenset(words))


def _table(concepts: dict[str, Concept]) -> dict[str, str]:
    codes: dict[str, str] = {}
    for rank in range(1 + max((len(c.names) for c in concepts.values()), default=0)):
        for code, concept in concepts.items():
            names = (concept.label, *concept.names)
            if rank < len(names):
                codes.setdefault(squeeze(names[rank]), code)
    return codes


def _label(label: str) -> str:
    label = unicodedata.normalize("NFKD", label).replace("\u2019", "'").replace("\u201c", "").replace("\u201d", "")
    label = label.encode("ascii", "ignore").decode().lower().strip()
    label = re.sub(r"^(.*)[,:] bald$", r"bald \1", label)
    label = re.sub(r"^([a-z]+)[,:] (beard|.* hair)$", r"\1 with \2", label)
    return re.sub(r"^([a-z]+ o'clock|[a-z]+-thirty)$", r"clock showing \1", label)


def _code_of(symbol: str) -> str:
    return plain_code("-".join(f"{ord(character):04X}" for character in symbol))


def _dialect(path: Path) -> dict[str, list[str]]:
    return {plain_code(code): [value] if isinstance(value, str) else value for code, value in _items(path)}


def _items(path: Path) -> Iterator[tuple[str, str | list[str]]]:
    yield from json.loads(path.read_text()).items()
