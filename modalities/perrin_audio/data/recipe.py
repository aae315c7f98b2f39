"""From a SoundFont and recorded hits to a pack of spectrograms, and one of waveforms for the vocoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin.training.data.decoders import audio
from perrin.training.data.pack import Decoded, Pack, open_pack, pack
from perrin.training.data.report import Report
from perrin.training.data.sources import AUDIO, Item, read_source
from perrin_audio.data.digits import say, utterances
from perrin_audio.data.fetch import hits_folder, soundfont
from perrin_audio.data.render import RATE, Player, Sound, read_hit
from perrin_audio.data.score import INSTRUMENTS, KINDS, Played, Score, scores
from perrin_audio.mel import Mel
from perrin_audio.notes import NO_NOTE, Caption, read_caption

__all__ = ["FRAMES", "LOUDEST", "SECONDS", "held_instruments", "load_mels", "load_sounds", "score_of"]

FRAMES = 128
SECONDS = FRAMES * 256 / RATE
"""Of a window: 2.048 s."""

QUIETEST = 1e-3
"""A sound that is nowhere louder is none."""

LOUDEST = 0.98
"""Peaks above it are brought down to it."""

WAVES = 8
"""Every so manieth sound is kept as a waveform."""


def score_of(data: bytes) -> Score:
    """The score that an item of the pack was made from."""
    values = json.loads(data)
    keys = tuple(Played(*key) for key in values.pop("keys"))
    return Score(**{**values, "keys": keys})


def _items(hits: Path) -> Iterator[Item]:
    for number, score in enumerate(scores()):
        text = json.dumps(score._asdict()).encode()
        yield Item(f"{number:06d}", (score.caption,), lambda text=text: text, {})  # type: ignore[misc]
    for path in sorted(hits.glob("*")):
        caption = _said(path.stem)
        if path.suffix in {".flac", ".wav"} and caption:
            values = Score("hit", -1, (), 100, caption)._asdict() | {"file": str(path)}
            yield Item(path.name, (caption,), lambda v=values: json.dumps(v).encode(), {})  # type: ignore[misc]


_WORDS = {
    "ambi": "ambient", "bd": "bass drum", "elec": "electronic", "guit": "guitar", "perc": "percussion",
    "sn": "snare drum", "misc": "", "lo": "low", "hi": "high", "mid": "mid", "tri": "triangle",
    "mehackit": "machine",
}  # fmt: skip


def _said(stem: str) -> str:
    """ "bass drum, klub" of ``bd_klub``; nothing for what is no sound to ask for."""
    family, *rest = stem.split("_")
    if family == "rand-stream" or not rest:
        return ""
    words = " ".join(_WORDS.get(word, word) for word in rest)
    return ", ".join(part for part in (_WORDS.get(family, family), words) if part)


class _Played:
    """Renders an item of `_items`."""

    def __init__(self, font: Path, waves: bool) -> None:
        self._player, self._waves = Player(font), waves

    def __call__(self, data: bytes, item: Item) -> Decoded:
        values = json.loads(data)
        file = values.pop("file", None)
        score = score_of(json.dumps(values).encode())
        sound = read_hit(Path(file), SECONDS) if file else self._player.play(score, SECONDS)
        return _decoded(sound, score.kind, score.note, score.start, score.program, self._waves)


def _decoded(sound: Sound, kind: str, note: int, start: float, program: int, waves: bool) -> Decoded:
    """What the pack keeps of a sound of one window: its spectrogram, or its waveform."""
    sound = audible(sound)
    arrays: dict[str, Any] = {
        "note": np.asarray(note, np.int16),
        "start": np.asarray(start, np.float32),
        "program": np.asarray(program, np.int16),
        "kind": np.asarray(KINDS.index(kind), np.int16),
    }
    if waves:
        arrays["sound"] = np.round(sound * 32767).astype(np.int16)
    else:
        arrays["mel"] = Mel().log(torch.from_numpy(sound)[None])[0].numpy().astype(np.float16)
    return Decoded(arrays)


def audible(sound: Sound) -> Sound:
    """With peaks of at most `LOUDEST`.

    Raises:
        ValueError: it is silent.
    """
    peak = float(np.abs(sound).max())
    if peak < QUIETEST:
        raise ValueError("silence")
    return sound * min(1.0, LOUDEST / peak)


def load_mels(folder: Path, progress: Progress, data: Mapping[str, Any] | None = None) -> Pack:
    """Logarithms of mel spectrograms ``mel`` (N, 80, 128), with ``note``, ``start``, ``program`` and ``kind``.

    Args:
        folder: where packs are kept.
        progress: told how it goes.
        data: the recipe's: ``kind`` is ``instruments`` (the default) or ``digits``; or ``folder`` is one of your own
            sounds with their captions, whose notes are read out of them.
    """
    data = data or {}
    if "folder" in data:
        return _load_folder(Path(data["folder"]), folder, progress)
    kind = data.get("kind", "instruments")
    if kind == "digits":
        return _load_digits(folder / "digits", progress)
    if kind != "instruments":
        raise InvalidInput("data.kind", kind, "instruments or digits, or a folder")
    return _load(folder / "mels", folder, progress, waves=False)


def load_sounds(folder: Path, progress: Progress) -> Pack:
    """Waveforms ``sound`` (N, 32768) int16 of every eighth item, and of every hit."""
    return _load(folder / "sounds", folder, progress, waves=True)


def _load(target: Path, folder: Path, progress: Progress, waves: bool) -> Pack:
    if (target / "report.json").exists():
        return open_pack(target)
    font, hits = soundfont(folder, progress), hits_folder(folder, progress)
    items = [item for n, item in enumerate(_items(hits)) if not waves or n % WAVES == 0 or not item.name[0].isdigit()]
    report = Report(read=len(items))
    return pack(items, _Played(font, waves), target, report, lambda n, _, what: progress(n, len(items), what))


def _load_digits(target: Path, progress: Progress) -> Pack:
    if (target / "report.json").exists():
        return open_pack(target)
    said = list(utterances())
    items = [Item(f"{n:05d}", (one.caption,), lambda n=n: str(n).encode(), {}) for n, one in enumerate(said)]  # type: ignore[misc]

    def decode(data: bytes, item: Item) -> Decoded:
        return _decoded(say(said[int(data)], SECONDS, RATE), "hit", NO_NOTE, 0.0, -1, False)

    return pack(items, decode, target, Report(read=len(items)), progress)


def _load_folder(source: Path, folder: Path, progress: Progress) -> Pack:
    key = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
    report = Report()
    read = audio(RATE, SECONDS)

    def decode(data: bytes, item: Item) -> Decoded:
        samples = np.asarray(read(data, item).arrays["samples"], np.float32)
        sound = np.pad(samples, (0, round(SECONDS * RATE) - len(samples)))
        return _decoded(sound, "hit", item.extra["note"], 0.0, -1, False)

    def named(item: Item) -> Item:
        said = [read_caption(caption) for caption in item.captions] or [Caption("", NO_NOTE)]
        return replace(item, captions=tuple(one.text for one in said), extra={"note": said[0].note})

    items = map(named, read_source(source, AUDIO, report))
    return pack(items, decode, folder / f"folder-{key}", report, progress)


def held_instruments(mels: Pack, share: float = 0.05) -> list[str]:
    """Instruments that go on: 3 s into a held note their median energy is at least this share of the first's."""
    arrays = {name: np.asarray(mels.arrays[name]) for name in ("kind", "program", "start")}
    loud = np.array([np.exp(2 * mel.astype(np.float32)).sum(0).mean() for mel in mels.arrays["mel"]])
    found = []
    for program, name in enumerate(INSTRUMENTS):
        mine = arrays["program"] == program
        late = mine & (arrays["kind"] == KINDS.index("later")) & (arrays["start"] >= 3)
        first = mine & (arrays["kind"] == KINDS.index("note"))
        if late.any() and np.median(loud[late]) >= share * np.median(loud[first]):
            found.append(name)
    return found
