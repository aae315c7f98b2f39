"""What is played for the training data, and what is said of it: one note, a short phrase, or a hit.

Every instrument of the General MIDI set plays 49 notes, in three strengths, short and held, and phrases that begin on
some of them. Nothing is drawn at random but what is left out of notes and where phrases begin, from a fixed seed; so
the list is always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import yaml

from perrin_audio.notes import NO_NOTE, name_of

__all__ = ["DRUMS", "INSTRUMENTS", "KINDS", "STRENGTHS", "Played", "Score", "held_out", "scores"]

INSTRUMENTS: tuple[str, ...] = (
    "grand piano", "bright piano", "electric grand piano", "honky-tonk piano", "electric piano",
    "chorused electric piano", "harpsichord", "clavinet", "celesta", "glockenspiel", "music box", "vibraphone",
    "marimba", "xylophone", "tubular bells", "dulcimer", "drawbar organ", "percussive organ", "rock organ",
    "church organ", "reed organ", "accordion", "harmonica", "bandoneon", "nylon guitar", "steel guitar",
    "jazz guitar", "clean electric guitar", "muted electric guitar", "overdriven guitar", "distorted guitar",
    "guitar harmonics", "acoustic bass", "fingered bass", "picked bass", "fretless bass", "slap bass", "popped bass",
    "synth bass", "deep synth bass", "violin", "viola", "cello", "double bass", "tremolo strings",
    "pizzicato strings", "harp", "timpani", "string ensemble", "slow strings", "synth strings", "soft synth strings",
    "choir", "voice oohs", "synth voice", "orchestra hit", "trumpet", "trombone", "tuba", "muted trumpet",
    "french horn", "brass section", "synth brass", "soft synth brass", "soprano saxophone", "alto saxophone",
    "tenor saxophone", "baritone saxophone", "oboe", "english horn", "bassoon", "clarinet", "piccolo", "flute",
    "recorder", "pan flute", "bottle", "shakuhachi", "whistle", "ocarina", "square wave lead", "sawtooth lead",
    "calliope", "chiff lead", "charang", "voice lead", "fifths lead", "bass and lead", "fantasia pad", "warm pad",
    "polysynth pad", "space choir pad", "bowed glass pad", "metallic pad", "halo pad", "sweep pad", "ice rain",
    "soundtrack pad", "crystal", "atmosphere", "brightness", "goblins", "echo drops", "star theme", "sitar", "banjo",
    "shamisen", "koto", "kalimba", "bagpipe", "fiddle", "shehnai", "tinkle bell", "agogo", "steel drums", "woodblock",
    "taiko drum", "melodic tom", "synth drum", "reverse cymbal",
)  # fmt: skip
"""By MIDI program, from 0; the eight effects after them are hits here."""

EFFECTS = {
    120: "guitar fret noise", 121: "breath noise", 122: "seashore", 123: "bird tweet", 124: "telephone ring",
    125: "helicopter", 126: "applause", 127: "gunshot",
}  # fmt: skip

DRUMS = {
    35: "acoustic bass drum", 36: "bass drum", 37: "side stick", 38: "acoustic snare drum", 39: "hand clap",
    40: "electric snare drum", 41: "low floor tom", 42: "closed hi-hat", 43: "high floor tom", 44: "pedal hi-hat",
    45: "low tom", 46: "open hi-hat", 47: "low mid tom", 48: "high mid tom", 49: "crash cymbal", 50: "high tom",
    51: "ride cymbal", 52: "chinese cymbal", 53: "ride bell", 54: "tambourine", 55: "splash cymbal", 56: "cowbell",
    57: "second crash cymbal", 58: "vibraslap", 59: "second ride cymbal", 60: "high bongo", 61: "low bongo",
    62: "muted high conga", 63: "open high conga", 64: "low conga", 65: "high timbale", 66: "low timbale",
    67: "high agogo", 68: "low agogo", 69: "cabasa", 70: "maracas", 71: "short whistle", 72: "long whistle",
    73: "short guiro", 74: "long guiro", 75: "claves", 76: "high woodblock", 77: "low woodblock", 78: "muted cuica",
    79: "open cuica", 80: "muted triangle", 81: "open triangle",
}  # fmt: skip

STRENGTHS = {"soft": 45, "medium": 80, "loud": 115}
"""MIDI velocities."""

LENGTHS = {"short": 0.3, "held": 8.0}
"""Seconds from the beginning of a note to its end."""

LOWEST, HIGHEST = 36, 84
"""C2 to C6."""

PHRASES = {
    "scale up": (0, 2, 4, 5, 7, 9, 11, 12),
    "scale down": (0, -1, -3, -5, -7, -8, -10, -12),
    "arpeggio": (0, 4, 7, 12, 7, 4, 0, 4),
    "trill": (0, 2, 0, 2, 0, 2, 0, 2),
    "repeated notes": (0, 0, 0, 0, 0, 0, 0, 0),
    "octaves": (0, 12, 0, 12, 0, 12, 0, 12),
}
"""Semitones from the first note, a quarter of a second each."""

EACH = 0.25

KINDS = ("note", "later", "phrase", "drum", "effect", "hit")

LATER = (0.5, 1.0, 2.0, 3.0, 4.0)
"""Seconds into a held note, of windows that do not begin with it."""


class Played(NamedTuple):
    """A key: pressed at and released after so many seconds."""

    note: int
    at: float
    seconds: float


class Score(NamedTuple):
    """What is played and what is said of it.

    Attributes:
        kind: of `KINDS`.
        program: of MIDI; 128 for the drums.
        keys: what is pressed.
        velocity: 1 to 127.
        caption: without the note.
        note: the first one, or `NO_NOTE`.
        start: seconds of the beginning that are left out.
    """

    kind: str
    program: int
    keys: tuple[Played, ...]
    velocity: int
    caption: str
    note: int = NO_NOTE
    start: float = 0.0

    @property
    def text(self) -> str:
        """What a person would say, the note included."""
        if self.note == NO_NOTE:
            return self.caption
        what, *rest = self.caption.split(", ")
        said = [f"{rest.pop(0)} from {name_of(self.note)}"] if self.kind == "phrase" else [f"note {name_of(self.note)}"]
        return ", ".join([what, *said, *rest])


@lru_cache(maxsize=1)
def held_out() -> frozenset[tuple[str, int]]:
    """Pairs of instrument and note that are never trained on."""
    listed = yaml.safe_load((files("perrin_audio") / "recipes" / "held-out.yaml").read_text())
    return frozenset((line["instrument"], int(line["number"])) for line in listed)


def scores(without: frozenset[tuple[str, int]] | None = None) -> Iterator[Score]:
    """All of them, those of pairs in ``without`` left out (by default the held-out ones)."""
    without = held_out() if without is None else without
    rng = np.random.default_rng(20261128)
    for program, name in enumerate(INSTRUMENTS):
        for note in range(LOWEST, HIGHEST + 1):
            if (name, note) in without:
                continue
            yield from notes(program, note)
            yield _note(program, note, str(rng.choice(list(STRENGTHS))), "held", float(rng.choice(LATER)))
        for phrase in PHRASES:
            first = rng.choice(np.arange(LOWEST + 12, HIGHEST - 11), 10, replace=False)
            yield from (_phrase(program, int(note), phrase) for note in first if (name, int(note)) not in without)
    for word, velocity in STRENGTHS.items():
        for key, name in DRUMS.items():
            yield Score("drum", 128, (Played(key, 0.0, 1.0),), velocity, f"{name}, {word}")
        for program, name in EFFECTS.items():
            yield Score("effect", program, (Played(60, 0.0, 8.0),), velocity, f"{name}, {word}")


def notes(program: int, note: int) -> Sequence[Score]:
    """One note in every strength and length, from its beginning."""
    return [_note(program, note, word, length) for word in STRENGTHS for length in LENGTHS]


def _note(program: int, note: int, word: str, length: str, start: float = 0.0) -> Score:
    caption = f"{INSTRUMENTS[program]}, {word}, {length}"
    keys = (Played(note, 0.0, LENGTHS[length]),)
    return Score("later" if start else "note", program, keys, STRENGTHS[word], caption, note, start)


def _phrase(program: int, note: int, phrase: str) -> Score:
    steps = PHRASES[phrase]
    keys = tuple(Played(note + step, EACH * i, EACH * 0.9) for i, step in enumerate(steps))
    return Score("phrase", program, keys, STRENGTHS["medium"], f"{INSTRUMENTS[program]}, {phrase}", note)
