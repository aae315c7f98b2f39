"""From a SoundFont and recorded hits to a pack of spectrograms, and one of waveforms for the vocoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perrin.modality import Progress
from perrin.training.data.pack import Decoded, Pack, open_pack, pack
from perrin.training.data.report import Report
from perrin.training.data.sources import Item
from perrin_audio.data.fetch import hits_folder, soundfont
from perrin_audio.data.render import RATE, Player, Sound, read_hit
from perrin_audio.data.score import KINDS, Played, Score, scores
from perrin_audio.mel import Mel

__all__ = ["FRAMES", "LOUDEST", "SECONDS", "load_mels", "load_sounds", "score_of"]

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
    "ambi": "ambient", "bd": "bass drum", "elec": "electronic", "guit": "guitar", "perc": "percussion", "sn": "snare drum",
    "misc": "", "lo": "low", "hi": "high", "mid": "mid", "tri": "triangle", "mehackit": "machine", "drum": "drum",
}  # fmt: skip


def _said(stem: str) -> str:
    """"bass drum, klub" of ``bd_klub``; nothing for what is no sound to ask for."""
    family, *rest = stem.split("_")
    if family == "rand-stream" or not rest:
        return ""
    words = " ".join(_WORDS.get(word, word) for word in rest)
    return ", ".join(part for part in (_WORDS.get(family, family), words) if part)


class _Decoder:
    """Renders an item; the pack keeps what it says of it."""

    def __init__(self, font: Path, mel: Mel, waves: bool) -> None:
        self._player, self._mel, self._waves = Player(font), mel, waves

    def __call__(self, data: bytes, item: Item) -> Decoded:
        values = json.loads(data)
        file = values.pop("file", None)
        sound = read_hit(Path(file), SECONDS) if file else self._player.play(score_of(json.dumps(values).encode()), SECONDS)
        sound = audible(sound)
        about = {
            "note": np.int16(values["note"]),
            "start": np.float32(values["start"]),
            "program": np.int16(values["program"]),
            "kind": np.int16(KINDS.index(values["kind"])),
        }
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in about.items()}
        if self._waves:
            arrays["sound"] = np.round(sound * 32767).astype(np.int16)
        else:
            arrays["mel"] = self._mel.log(torch.from_numpy(sound)[None])[0].numpy().astype(np.float16)
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


def load_mels(folder: Path, progress: Progress) -> Pack:
    """Logarithms of mel spectrograms ``mel`` (N, 80, 128), with ``note``, ``start``, ``program`` and ``kind``."""
    return _load(folder / "mels", folder, progress, waves=False)


def load_sounds(folder: Path, progress: Progress) -> Pack:
    """Waveforms ``sound`` (N, 32768) int16 of every eighth item, and of every hit."""
    return _load(folder / "sounds", folder, progress, waves=True)


def _load(target: Path, folder: Path, progress: Progress, waves: bool) -> Pack:
    if (target / "report.json").exists():
        return open_pack(target)
    font, hits = soundfont(folder, progress), hits_folder(folder, progress)
    items = [item for n, item in enumerate(_items(hits)) if not waves or n % WAVES == 0 or not item.name[0].isdigit()]
    return pack(items, _Decoder(font, Mel(), waves), target, Report(str(font.name)), progress)
