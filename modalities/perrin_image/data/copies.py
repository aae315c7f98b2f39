"""Which pictures are recoloured, into what, and what the copies are called.

A copy teaches "blue apple" apart from "red apple", so only pictures whose name stays true in another colour are
copied: things, animals, hearts and shapes, plain smileys; not people, signs, scenes or names of several things of
which one would change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .captions import colour_words_in, recoloured_captions, without_colours
from .colours import COLOURS, HUES
from .pack import Record
from .recolour import body_colour, recolour
from .sets import Drawing
from .synonyms import SYNONYMS

__all__ = ["COPIES", "COPY_WEIGHT", "copies_of"]

COPIES = 2
COPY_WEIGHT = 0.35

_SCENE = re.compile(
    r"\b(?:at|cityscape|sunrise|sunset|night|milky way|fireworks|fog|scene|landscape|behind|showing|medal|no)\b"
)
_SEVERAL = re.compile(r" (?:and|behind|on|in|with|over|under) ")
_LABEL_OF_SCENE = frozenset(
    {
        *("rainbow", "sparkler", "foggy", "money with wings", "national park", "desert island", "performing arts"),
        "beach with umbrella",
    }
)
_ODDS = {**dict.fromkeys(HUES, 3.0), "brown": 1.0, "black": 1.0, "white": 1.0, "gray": 0.7}


def _least(drawing: Drawing, name: str) -> float | None:
    """The share the main colour must cover before this drawing is recoloured; None where it must not be."""
    concept = drawing.concept
    if _SCENE.search(name) or name in _LABEL_OF_SCENE:
        return None
    if concept is None:
        clip = drawing.id.startswith("clipart/") and not drawing.id.startswith("clipart/people/")
        return 0.6 if clip else None
    if concept.kind in {"people-body", "flags"} or (
        concept.kind == "symbols" and concept.subkind not in {"geometric", "arrow"}
    ):
        return None
    if concept.kind == "smileys-emotion" and concept.subkind != "heart":
        return 0.75
    return 0.75 if _SEVERAL.search(name) else 0.40


def copies_of(
    drawing: Drawing, picture: NDArray[np.uint8], record: Record
) -> Iterator[tuple[NDArray[np.uint8], Record]]:
    """Up to COPIES recoloured pictures uint8 [64, 64, 4] of `picture` with their records; the same ones in every
    run."""
    least = _least(drawing, record.name)
    colour = body_colour(picture, least) if least is not None else None
    if colour is None:
        return
    known = {colour, *colour_words_in(record.name)}
    names = [n for n in record.captions if not re.search(r",|^picture of ", n) and set(colour_words_in(n)) <= known]
    names = [without_colours(record.name), *(n for n in SYNONYMS.get(record.name, ()) if n in names), *names]
    chance = random.Random(record.id)
    targets = [word for word in COLOURS if word not in {colour, record.colour}]
    made = 0
    while targets and made < COPIES:
        target = chance.choices(targets, [_ODDS[word] for word in targets])[0]
        targets.remove(target)
        captions = recoloured_captions(names, target)
        copy = recolour(picture, colour, target) if captions else None
        if copy is None:
            continue
        made += 1
        weight = round(record.weight * COPY_WEIGHT, 5)
        yield (
            copy,
            replace(
                record,
                id=f"{record.id}@{target}",
                captions=tuple(captions),
                colour=target,
                recoloured=True,
                weight=weight,
            ),
        )
