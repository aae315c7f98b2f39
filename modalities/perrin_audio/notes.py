"""Notes by name and number: A4 is MIDI 69 and 440 Hz. And what a caption says of one.

.. math:: f = 440 \\cdot 2^{(m - 69) / 12}
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["NO_NOTE", "Caption", "cents", "frequency", "name_of", "number_of", "read_caption", "spoken"]

NO_NOTE = 128
"""Stands for no note, after the 128 that MIDI has."""

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_NOTE = r"([A-Ga-g])(#|♯|b|♭)?(-1|\d)"
_SAID = re.compile(rf"(?:\b(?:note|from|on|at)\s+)?(?<![\w#]){_NOTE}(?!\w)")


def number_of(note: str) -> int:
    """The MIDI number of a note such as A4, C#5 or Bb3.

    Raises:
        ValueError: it is no note, or not one of MIDI's, C-1 to G9.
    """
    match = re.fullmatch(_NOTE, note.strip())
    if match is None:
        raise ValueError(note)
    letter, accidental, octave = match.groups()
    number = 12 * (int(octave) + 1) + _STEPS[letter.upper()] + _ACCIDENTALS[accidental or ""]
    if not 0 <= number < NO_NOTE:
        raise ValueError(note)
    return number


def name_of(number: int) -> str:
    """The name of a MIDI number, with sharps."""
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def frequency(number: float) -> float:
    """Hz of a MIDI number, which may have a fraction."""
    hertz: float = 440.0 * 2.0 ** ((number - 69) / 12)
    return hertz


def cents(hertz: float, number: float) -> float:
    """How far a frequency is above a note, in hundredths of a semitone."""
    return 1200.0 * math.log2(hertz / frequency(number))


class Caption(NamedTuple):
    """A caption's two halves: the text without its note, and the note, or `NO_NOTE`."""

    text: str
    note: int


_FORMS = re.compile(r"\b(?:short|held|scale|arpeggio|trill|repeated|octaves)\b")


def spoken(caption: str) -> Caption:
    """`read_caption`, as the model has learnt to read: a note that is neither short nor part of a phrase is held."""
    read = read_caption(caption)
    if read.note == NO_NOTE or _FORMS.search(read.text):
        return read
    return read._replace(text=", ".join(part for part in (read.text, "held") if part))


def read_caption(caption: str) -> Caption:
    """Take the first note out of a caption: "violin, note A4, loud" is "violin, loud" and 69."""
    for match in _SAID.finditer(caption):
        try:
            note = number_of("".join(part or "" for part in match.groups()))
        except ValueError:
            continue
        rest = f"{caption[: match.start()]} {caption[match.end() :]}"
        parts = [" ".join(part.split()) for part in rest.split(",")]
        return Caption(", ".join(part for part in parts if part), note)
    return Caption(" ".join(caption.split()), NO_NOTE)
