"""What a caption says, apart: the thing, and what it does. No torch.

The image model draws the thing alone; the caption as a whole is read for the motion. Words that are not known here stay
with the thing: the image model then makes of them what it can.
"""

from __future__ import annotations

import re

from perrin_video.motions import ADVERBS, KINDS

__all__ = ["MOTIONLESS", "moves", "thing_of"]

_PHRASES = sorted({phrase for ways in KINDS.values() for phrase in ways if phrase}, key=len, reverse=True)
_ADVERBS = sorted({adverb for ways in ADVERBS.values() for adverb in ways})
_SAID = re.compile(
    rf"\b(?:(?:{'|'.join(_ADVERBS)})\s+)?(?:{'|'.join(map(re.escape, _PHRASES))})\b(?:\s+(?:{'|'.join(_ADVERBS)})\b)?"
)
_TWO = re.compile(r"^(?:two|a pair of)\s+(?:an?\s+)?(.+)$")

MOTIONLESS = frozenset(KINDS["still"]) - {""}


def thing_of(caption: str) -> str:
    """``a rocket`` of ``a rocket flying up fast``; ``strawberry`` of ``two strawberries drifting apart``."""
    text = " ".join(caption.lower().split())
    thing = " ".join(_SAID.sub(" ", text).split()).strip(" ,.")
    apart = any(phrase in text for phrase in KINDS["apart"])
    two = _TWO.match(thing) if apart else None
    return (_one(two[1]) if two else thing) or text


def moves(caption: str) -> bool:
    """Whether a caption says, in words that are known here, that something moves."""
    found = _SAID.search(" ".join(caption.lower().split()))
    return found is not None and not any(phrase in found[0] for phrase in MOTIONLESS)


def _one(things: str) -> str:
    if things.endswith("ies"):
        return things[:-3] + "y"
    if things.endswith(("ches", "shes", "xes")):
        return things[:-2]
    return things[:-1] if things.endswith("s") and not things.endswith("ss") else things
