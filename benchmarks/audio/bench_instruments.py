"""How good a model of notes is: pitch, instrument, distance to real sounds, silence, clipping, the vocoder, time.

    perrin train audio/judge                      # the judge of instruments, once: ten minutes
    python benchmarks/audio/bench_instruments.py [MODEL] [--strengths loud medium] [--crepe tiny] [--out FOLDER]

Of every held-out pair of instrument and note, which no model here was trained on, one note a strength, seed 7 and on,
at the model's defaults; a pair for which the SoundFont itself is silent is left out, and said. Beside it, by the same
computation, the real renders of these notes, and these through the model's vocoder.

- Pitch: torchcrepe's, within 50 cents of the note, octave included; and within 50 cents of what it hears in the real
  render, since some instruments (drawbars, guitar harmonics) sound an octave away from the key.
- Instrument: the judge's first choice of 120.
- Frechet distance in the judge's features (named perrin-instruments, and no one else's) to the real renders; the floor
  is between two halves of these, each half against the other, and so at half the number.
- Silence and clipping: also of 200 captions of every kind that the model has learnt.
- Log-spectral distance of vocoders on real sounds that none has learnt from.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.progress import track
from torch import Tensor

import perrin
from perrin.metrics.distances import frechet
from perrin.models import find
from perrin.models.weights import load_network
from perrin.settings import Settings
from perrin_audio.data.fetch import soundfont
from perrin_audio.data.recipe import SECONDS, audible, load_sounds
from perrin_audio.data.render import RATE, Player
from perrin_audio.data.score import INSTRUMENTS, STRENGTHS, held_out, notes, scores
from perrin_audio.mel import Mel
from perrin_audio.metrics.distances import log_spectral_distance
from perrin_audio.metrics.instruments import FEATURES, Judge
from perrin_audio.metrics.pitch import heard_pitch, within
from perrin_audio.notes import name_of
from perrin_audio.vocoder import Vocoder

SEED = 7
QUIET = 1e-3


def quiet(*_: object) -> None:
    """Nobody is told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="instruments")
    parser.add_argument("--strengths", nargs="+", default=["loud", "medium"], choices=list(STRENGTHS))
    parser.add_argument("--crepe", default="full", choices=["full", "tiny"])
    parser.add_argument("--judge", default="instruments-judge")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    card = find(asked.model)
    mel = Mel.from_card(card.data["mel"])
    folder = Settings().home / "data" / "audio"
    judge = load_network(find(asked.judge), "judge", kinds={"judge": Judge})
    pairs = [(INSTRUMENTS.index(name), note) for name, note in sorted(held_out())]
    wanted = [(program, note, word) for word in asked.strengths for program, note in pairs]

    player = Player(soundfont(folder, quiet))
    real, heard = [], []
    for program, note, word in wanted:
        score = next(s for s in notes(program, note) if s.velocity == STRENGTHS[word] and "short" not in s.caption)
        sound = player.play(score, SECONDS)
        if np.abs(sound).max() < QUIET:
            print(f"left out: the SoundFont has no sound for {score.text}")
            continue
        heard.append((program, note, word))
        real.append(torch.from_numpy(audible(sound)))
    wanted = heard
    generate = perrin.load("audio", model=asked.model, device="cpu")
    made, began, cpu = [], time.monotonic(), time.process_time()
    for seed, (program, note, word) in enumerate(track(wanted, "generating")):
        said = f"{INSTRUMENTS[program]}, note {name_of(note)}, {word}"
        made.append(torch.from_numpy(generate(said, seed=SEED + seed, seconds=SECONDS)[0].value.sound))
    captions = [score.text for score in scores() if score.kind != "later"]
    every = np.random.default_rng(SEED).choice(captions, 200, replace=False)
    peaks, clipped = [], 0
    for seed, said in enumerate(track(every, "200 captions")):
        sound = generate(str(said), seed=SEED + seed)[0].value.sound
        peaks.append(float(np.abs(sound).max()))
        clipped += bool((np.abs(sound) >= 0.999).mean() > 0.001)
    some = len(wanted) + len(every)
    each = (time.monotonic() - began) / some, (time.process_time() - cpu) / some

    vocoder = load_network(card, "vocoder", kinds={"vocoder": Vocoder})
    sets = {"real": torch.stack(real), "made": torch.stack(made)}
    with torch.inference_mode():
        sets["real, through the vocoder"] = vocoder(mel.log(sets["real"]))
    print(f"\n{len(wanted)} notes of {len(pairs)} held-out pairs, {asked.model}")
    print(f"pitch by crepe {asked.crepe}, distance in {FEATURES}\n")
    print(f"{'':28}{'pitch':>8}{'as real':>9}{'instrument':>12}{'Frechet':>10}{'silent':>8}{'clipped':>9}")
    truth = heard_pitch(sets["real"], RATE, asked.crepe)
    found: dict[str, dict[str, float]] = {}
    for name, sounds in sets.items():
        found[name] = measured(name, sounds, sets["real"], wanted, judge, mel, asked.crepe, truth)
        f = found[name]
        print(
            f"{name:28}{f['pitch']:8.3f}{f['as_real']:9.3f}{f['instrument']:12.3f}{f['frechet']:10.2f}{f['silent']:8.3f}{f['clipped']:9.3f}"
        )
    print(f"\nof 200 captions of every kind: {sum(p < QUIET for p in peaks)} silent, {clipped} clipped")
    print(f"\na note in {each[0]:.2f} s, {each[1]:.2f} s of processor")

    sounds = load_sounds(folder, quiet).arrays["sound"][::50][:128]  # those that no vocoder is trained on
    real_ones = torch.from_numpy(sounds.astype(np.float32) / 32767)
    with torch.inference_mode():
        logs = mel.log(real_ones)
        distances = {
            "vocoder": float(log_spectral_distance(vocoder(logs), real_ones)),
            "griffin-lim": float(log_spectral_distance(mel.griffin_lim(logs), real_ones)),
        }
    print("log-spectral distance, dB: " + ", ".join(f"{name} {value:.2f}" for name, value in distances.items()))
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        for n, (program, note, word) in enumerate(wanted):
            stem = f"{n:03d}-{INSTRUMENTS[program]}-{name_of(note)}-{word}".replace(" ", "-")
            soundfile.write(asked.out / f"{stem}-made.wav", made[n].numpy(), RATE)
            soundfile.write(asked.out / f"{stem}-real.wav", real[n].numpy(), RATE)
        (asked.out / "figures.json").write_text(json.dumps({"sets": found, "lsd": distances}, indent=1) + "\n")


def measured(
    name: str,
    sounds: Tensor,
    real: Tensor,
    wanted: list[tuple[int, int, str]],
    judge: torch.nn.Module,
    mel: Mel,
    crepe: str,
    truth: list[float],
) -> dict[str, float]:
    pitches = heard_pitch(sounds, RATE, crepe)
    right = [within(hertz, note) for hertz, (_, note, _) in zip(pitches, wanted, strict=True)]
    with torch.inference_mode():
        features = judge.features(mel.log(sounds))  # type: ignore[operator]
        theirs = judge.features(mel.log(real))  # type: ignore[operator]
        first = judge(mel.log(sounds)).argmax(1)
    half = len(real) // 2
    apart = frechet(theirs[:half], theirs[half:]) if name == "real" else frechet(features, theirs)
    peaks = sounds.abs().amax(1)
    missed = [
        f"{INSTRUMENTS[p]} {name_of(n)} {h:.0f} Hz"
        for h, ok, (p, n, _) in zip(pitches, right, wanted, strict=True)
        if not ok
    ]
    print(f"  {name}: pitch missed {len(missed)}: " + "; ".join(missed[:12]))
    return {
        "pitch": sum(right) / len(right),
        "as_real": float(np.mean([abs(1200 * np.log2(a / b)) <= 50 for a, b in zip(pitches, truth, strict=True)])),
        "instrument": float((first == torch.tensor([program for program, _, _ in wanted])).float().mean()),
        "frechet": apart,
        "silent": float((peaks < QUIET).float().mean()),
        "clipped": float(((sounds.abs() >= 0.999).float().mean(1) > 0.001).float().mean()),
    }


if __name__ == "__main__":
    main()
