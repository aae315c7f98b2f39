r"""Prompts whose parts have weights: ``(red:1.3) apple``. No torch.

A part in parentheses that ends in a colon and a number counts so much: 1 is as without, 0 leaves it out. Any other
parentheses are text; so are ``\(`` and ``\)`` anywhere.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perrin.errors import InvalidInput

__all__ = ["MOST_PARTS", "MOST_WEIGHT", "Weighed", "read_prompt"]

MOST_WEIGHT = 2.0
"""Beyond it pictures fall apart."""

MOST_PARTS = 4
"""Every weighted part costs a network evaluation a row."""

_PART = re.compile(r"\\([()])|\(((?:\\[()]|[^()\\])+):\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*\)")
_ESCAPE = re.compile(r"\\([()])")


class Weighed(NamedTuple):
    """A prompt as it was meant.

    Attributes:
        text: without marks.
        parts: for every part whose weight is not 1, the text without it, and the weight.
    """

    text: str
    parts: tuple[tuple[str, float], ...]


def read_prompt(prompt: str) -> Weighed:
    """Read the weights in ``prompt``.

    Raises:
        InvalidInput: a weight beyond 2, more than four weighted parts, or nothing else in the prompt.
    """
    pieces: list[tuple[str, float]] = []
    at = 0
    for match in _PART.finditer(prompt):
        pieces.append((prompt[at : match.start()], 1.0))
        literal, part, weight = match.groups()
        pieces.append((literal, 1.0) if literal else (_ESCAPE.sub(r"\1", part), float(weight)))
        at = match.end()
    pieces.append((prompt[at:], 1.0))
    if at == 0:
        return Weighed(prompt, ())
    weighed = [number for number, (_, weight) in enumerate(pieces) if weight != 1]
    for number in weighed:
        if pieces[number][1] > MOST_WEIGHT:
            raise InvalidInput("prompt", prompt, rf"weights from 0 to {MOST_WEIGHT:g}; \( and \) for plain parentheses")
    if len(weighed) > MOST_PARTS:
        raise InvalidInput("prompt", prompt, f"at most {MOST_PARTS} weighted parts")
    texts = [text for text, _ in pieces]
    whole = _joined(texts)
    if not whole:
        raise InvalidInput("prompt", prompt, "a prompt of at least one word")
    return Weighed(whole, tuple((_joined([*texts[:n], *texts[n + 1 :]]), pieces[n][1]) for n in weighed))


def _joined(texts: list[str]) -> str:
    return " ".join("".join(texts).split())
