"""Captions are true of the picture, lower case, best first, two to eight of them.

A caption with a colour word is written only for a picture measured to have that colour; a recoloured picture has no
other kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .colours import COLOURS
from .lexicon import HEADLESS, HEADS, KINDS, MASS, NEVER, PICTOGRAM_NAMES, THINGS, word_set
from .synonyms import SYNONYMS
from .vocabulary import Concept, Vocabulary, words_of

__all__ = [
    "MOST",
    "article",
    "captions_for",
    "clean",
    "colour_words_in",
    "mirror_ok",
    "recoloured_captions",
    "without_colours",
]

MOST = 8
_COLOUR_NAMES = word_set("grey violet golden silver gold crimson teal cyan magenta colourful colorful") | set(COLOURS)

_PLURALS = frozenset({"men", "women", "people", "children", "feet", "mice", "teeth", "beans", "hands"})
_UNCOLOURED = re.compile(r"^no |^(?:wo)?men's |\bplace medal|behind|^clock showing| at ")
_SHORTENED = frozenset({"animals-nature", "food-drink", "objects", "travel-places"})
#: Neighbouring words that people and measurements disagree about; a name may carry either.
_NEAR = frozenset(
    frozenset(pair.split())
    for pair in (
        "red pink",
        "red brown",
        "red orange",
        "orange yellow",
        "orange brown",
        "white gray",
        "black gray",
        "purple blue",
        "purple pink",
    )
)


def clean(text: str) -> str:
    """Lower case, single spaces, no punctuation but hyphen, comma and apostrophe."""
    text = text.lower().replace("\u2019", "'").replace(":", ",").replace("&", " and ")
    text = re.sub(r"[^a-z0-9',\- ]+", " ", text.replace("_", " "))
    return re.sub(r"\s+", " ", text).strip(" ,-")


def article(name: str) -> str:
    """The name with its article: "a rocket", "an owl"; unchanged where it takes none (plural, mass noun, several
    parts)."""
    words = name.split()
    head = re.split(r" (?:with|in|on|of|without|from|and|showing) ", name)[0].split()
    if not words or "," in name or words[0] in {"a", "an", "the", "two", "three"} or head[-1] in MASS:
        return name
    if _PLURALS.intersection((words[0], head[-1])) or (head[-1].endswith("s") and not head[-1].endswith(("ss", "us"))):
        return name
    an = words[0][0] in "aeiou" and not words[0].startswith(("uni", "one", "eu", "us", "ute", "uk"))
    return f"{'an' if an or words[0] in {'hour', 'hourglass'} else 'a'} {name}"


def colour_words_in(text: str) -> list[str]:
    """The colour words of a text, in order."""
    return [word for word in re.findall(r"[a-z]+", text) if word in _COLOUR_NAMES]


def without_colours(name: str) -> str:
    """The name with its colour words taken out: "red apple" -> "apple"; "" where nothing is left."""
    return re.sub(r"\s+", " ", " ".join(word for word in name.split() if word not in _COLOUR_NAMES)).strip()


def _unique(captions: Iterable[str]) -> list[str]:
    kept: dict[str, None] = {}
    for caption in captions:
        caption = clean(caption)
        if len(caption) > 2 and not NEVER.intersection(re.findall(r"[a-z]+", caption)):
            kept.setdefault(caption)
    return list(kept)


def _at_least_two(captions: list[str]) -> list[str]:
    return [*captions, f"picture of {captions[0]}"] if len(captions) == 1 else captions


def _fits_colour(name: str, colour: str | None, label: str) -> bool:
    known = colour_words_in(label)
    return all(word == colour or word in known for word in colour_words_in(name))


def _as_seen(label: str, colour: str | None) -> str:
    """The label with its colour word replaced where another colour was measured: a "red car" that is drawn blue."""
    said = colour_words_in(label)
    if not said or colour is None or colour in said or frozenset((said[0], colour)) in _NEAR:
        return label
    return " ".join(colour if word == said[0] else word for word in label.split())


def _heads(concept: Concept) -> list[str]:
    """Shorter true names: "dog face" -> "dog", "alarm clock" -> "clock" where the short name is itself a keyword."""
    words = concept.label.split()
    if (
        len(words) < 2
        or concept.label in HEADLESS
        or re.search(r"[,:]| (?:with|in|on|of|without|and|behind) ", concept.label)
    ):
        return []
    if words[-1] == "face" and concept.kind == "animals-nature":
        return [" ".join(words[:-1])]
    if concept.kind in _SHORTENED and words[-1] in concept.tags and words[-1] in HEADS:
        return [words[-1]]
    return []


def captions_for(
    concept: Concept | None, names: Sequence[str], colour: str | None, vocabulary: Vocabulary
) -> list[str]:
    """Captions of a picture, best first.

    Args:
        concept: what it shows, or None where only its own name is known.
        names: what its set calls it, best first.
        colour: its dominant colour word, or None.
        vocabulary: the words that may be trusted in aliases.

    Returns:
        One to MOST captions, without repetition.
    """
    own = [words_of(name) for name in names]
    if concept is None:
        base, candidates = own[0], [own[0], article(own[0]), *own[1:]]
    else:
        base = _as_seen(concept.label, colour)
        synonyms = [name for name in SYNONYMS.get(concept.label, ()) if _fits_colour(name, colour, base)]
        trusted = [
            name
            for name in (*own, *concept.names)
            if _fits_colour(name, colour, base)
            and set(name.split()) <= vocabulary.words
            and 3 <= len(name) <= 40
            and not re.search(r"\d|^flag for ", name)
        ]
        thing = concept.subkind in THINGS
        candidates = [
            base,
            *([article(base)] if thing else []),
            *synonyms[:2],
            *_heads(concept),
            *trusted[:2],
            *synonyms[2:],
        ]
    captions = _unique(candidates)[: MOST - 2]
    if (
        colour is not None
        and not colour_words_in(base)
        and not _UNCOLOURED.search(base)
        and (concept is None or concept.kind != "people-body")
    ):
        short = next(iter(_heads(concept)), base) if concept is not None else base
        if "," not in short and len(short.split()) <= 4 and not short.startswith(("a ", "an ", "the ")):
            coloured = f"{colour} {short}"
            captions[2:2] = [coloured, article(coloured)]
    if concept is not None and concept.subkind in KINDS:
        kind = KINDS[concept.subkind]
        parts = [
            base,
            *([kind] if kind not in base.split() else []),
            *([colour] if colour and not colour_words_in(base) and concept.kind != "people-body" else []),
        ]
        if len(parts) > 1:
            captions.append(", ".join(parts))
    return _at_least_two(_unique(captions)[:MOST])


def recoloured_captions(names: Sequence[str], colour: str) -> list[str]:
    """Captions of a recoloured picture: each carries the new colour and no other; [] where no name can.

    Args:
        names: true names of the shape, best first, colour words allowed (they are taken out).
        colour: the word measured on the recoloured picture.
    """
    captions: list[str] = []
    for name in names:
        bare = without_colours(clean(name))
        bare = re.sub(r"^(?:a|an|the) ", "", bare)
        if (
            not bare
            or "," in bare
            or len(bare.split()) > 5
            or any(word.startswith(tuple(COLOURS)) for word in bare.split())
        ):
            continue
        captions += [f"{colour} {bare}", article(f"{colour} {bare}")]
    return _at_least_two(_unique(captions)[:6])


def mirror_ok(captions: Sequence[str], concept: Concept | None) -> bool:
    """Whether the mirror image is as true of its captions: not for sides, arrows, letters, digits, clocks, flags and
    signs."""
    if concept is not None and (
        concept.kind == "flags" or (concept.kind == "symbols" and concept.subkind != "geometric")
    ):
        return False
    words = {word for caption in captions for word in re.findall(r"[a-z0-9']+", caption)}
    return not words & PICTOGRAM_NAMES and not any(re.search(r"\d", word) for word in words)
