"""Notes and captions, mel spectrograms, files, windows: laws that hold without a trained model."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from perrin.commands.inspect import read_metadata
from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin_audio.mel import Mel
from perrin_audio.metrics.distances import log_spectral_distance
from perrin_audio.notes import NO_NOTE, cents, frequency, name_of, number_of, read_caption, spoken
from perrin_audio.reading import read_sound
from perrin_audio.training.vocoder import said_loss, said_of
from perrin_audio.vocoder import Said, Transform, Vocoder
from perrin_audio.windows import Windows, layout_of
from perrin_audio.writing import PEAK, SUBTYPES, levelled, loudness_of, write

RATE = 16000


def tone(seconds: float = 1.0, hertz: float = 440.0, size: float = 0.3, rate: int = RATE) -> np.ndarray:
    return (size * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


# --- notes ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 127))
def test_a_note_and_its_name_are_one(number: int) -> None:
    assert number_of(name_of(number)) == number
    assert math.isclose(frequency(number + 12), 2 * frequency(number))
    assert abs(cents(frequency(number), number)) < 1e-6


def test_notes_as_people_write_them() -> None:
    assert [number_of(n) for n in ("A4", "a4", "C#5", "Bb3", "C-1", "G9", "B#3", "Cb4")] == [
        69,
        69,
        73,
        58,
        0,
        127,
        60,
        59,
    ]
    for wrong in ("H4", "A", "C##4", "A10", "Cb-1", ""):
        with pytest.raises(ValueError, match=r"^" + wrong.replace("+", r"\+")):
            number_of(wrong)


@pytest.mark.parametrize(
    ("caption", "text", "note"),
    [
        ("violin, note A4, loud", "violin, loud", 69),
        ("violin, A4", "violin", 69),
        ("marimba, arpeggio from C#4, soft", "marimba, arpeggio, soft", 61),
        ("a piano on Bb3", "a piano", 58),
        ("bass drum, klub", "bass drum, klub", NO_NOTE),
        ("a B4S station", "a B4S station", NO_NOTE),
    ],
)
def test_a_caption_has_a_text_and_a_note(caption: str, text: str, note: int) -> None:
    assert read_caption(caption) == (text, note)


def test_a_note_of_which_no_length_is_said_is_held() -> None:
    assert spoken("violin, note A4, loud") == ("violin, loud, held", 69)
    assert spoken("violin, note A4, short").text == "violin, short"
    assert spoken("A4") == ("held", 69)
    assert spoken("marimba, arpeggio from C4").text == "marimba, arpeggio"
    assert spoken("bass drum, klub").text == "bass drum, klub"


# --- spectrograms -----------------------------------------------------------------------------------------------------


def test_a_frame_is_a_hop_and_the_loudest_band_is_that_of_the_tone() -> None:
    mel = Mel()
    logs = mel.log(torch.from_numpy(np.stack([tone(2.048, 440), tone(2.048, 1760)])))
    assert logs.shape == (2, 112, 128)
    bands = mel._bank.argmax(1)
    for row, hertz in enumerate((440, 1760)):
        assert abs(int(logs[row, :, 64].argmax()) - int(bands[round(hertz / RATE * 1024)])) <= 1


def chirps() -> torch.Tensor:
    """(2, 16384): a steady tone of an odd pitch with its octave, and one that glides and is struck twice."""
    at = np.arange(16384) / RATE
    steady = 0.4 * np.sin(2 * np.pi * 333.3 * at) + 0.2 * np.sin(2 * np.pi * 666.6 * at + 1.0)
    glides = 0.5 * np.sin(2 * np.pi * (300 * at + 200 * at**2)) * np.exp(-4 * (at % 0.5))
    return torch.from_numpy(np.stack([steady, glides]).astype(np.float32))


def test_the_transform_of_the_vocoder_is_that_of_the_spectrogram_and_has_an_inverse() -> None:
    x, transform = chirps(), Transform(1024, 256)
    assert torch.allclose(transform(x).abs(), Mel().magnitudes(x), atol=1e-3)
    assert (transform.inverse(transform(x)) - x).abs().max() < 1e-5


def heard_hertz(sound: torch.Tensor) -> float:
    middle = sound[2000:14000] * torch.hann_window(12000)
    return int(torch.fft.rfft(middle, 160_000).abs().argmax()) / 10


def test_phases_are_the_sum_of_their_steps() -> None:
    """From magnitudes and the steps of real sounds, the sounds; without steps a steady tone is out of tune."""
    x, vocoder = chirps(), Vocoder(width=8, hidden=8, depth=1, phased=512)
    spectrum = vocoder.transform(x)
    real = said_of(spectrum, vocoder.transform, 512)
    phases = vocoder.phases(spectrum.abs(), real.forward, real.across)
    assert torch.allclose(phases.abs(), torch.ones(()), atol=1e-3)
    made = vocoder.transform.inverse(spectrum.abs() * phases)
    assert log_spectral_distance(made, x) < 3.0
    assert abs(heard_hertz(made[0]) - 333.3) < 0.5
    still = vocoder.phases(spectrum.abs(), torch.zeros_like(real.forward), torch.zeros_like(real.across))
    assert abs(heard_hertz(vocoder.transform.inverse(spectrum.abs() * still)[0]) - 333.3) > 3.0


def test_magnitudes_come_to_the_bands_that_are_asked_for() -> None:
    x, vocoder, mel = chirps(), Vocoder(width=8, hidden=8, depth=1), Mel()
    logs, real = mel.log(x), mel.magnitudes(x).clamp(min=mel.floor)
    assert torch.allclose(vocoder.matched(real, logs), real, rtol=0.02), "what is right stays"
    smooth = torch.nn.functional.avg_pool1d(real.transpose(1, 2), 9, 1, 4, count_include_pad=False).transpose(1, 2)
    matched = vocoder.matched(smooth, logs)
    off, left = ((mel.log_of(sizes) - logs).square().mean().sqrt() for sizes in (smooth, matched))
    assert left < 0.2 * off
    assert torch.equal(matched[:, 0], smooth[:, 0]), "no band sees what does not swing"


def test_the_vocoders_loss_is_least_where_it_says_what_is() -> None:
    transform = Transform(1024, 256)
    real = said_of(transform(chirps()), transform, 256)
    assert real.forward.shape == real.across.shape == (2, 256, 64)
    assert all(float(value) < 1e-5 for value in said_loss(real, real).values())
    turned = real._replace(forward=real.forward + 2 * torch.pi, across=real.across - 4 * torch.pi)
    assert all(float(value) < 1e-4 for value in said_loss(turned, real).values()), "an angle is one"
    off = said_loss(Said(real.logs + 0.3, real.forward + 0.5, real.across + 0.5), real)
    assert abs(float(off["forward"]) - (1 - np.cos(0.5))) < 1e-3
    assert off["size"] > 0.05


def test_griffin_lim_makes_the_tone_again() -> None:
    mel = Mel()
    x = torch.from_numpy(tone(2.048))[None]
    made = mel.griffin_lim(mel.log(x))
    assert made.shape == x.shape
    peak = made[0].numpy()[4000:28000]
    heard = np.abs(np.fft.rfft(peak)).argmax() * RATE / len(peak)
    assert abs(12 * np.log2(heard / 440)) < 0.5, "its phases turn out another way on each processor, its key does not"
    assert torch.equal(made, mel.griffin_lim(mel.log(x))), "the same for the same input"


def test_the_distance_is_decibels() -> None:
    x = torch.from_numpy(tone() + 0.01 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32))[None]
    assert log_spectral_distance(x, x) == 0
    assert abs(float(log_spectral_distance(x / 10, x)) - 20) < 1.0


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("media_type", "depth"), SUBTYPES)
def test_a_file_is_its_sound_and_says_how_it_was_made(media_type: str, depth: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    sound, said = tone(1.234), {"prompt": "violin, é", "parameters": {"more": "x" * 20_000}}
    data = write(sound, RATE, media_type, depth, said)
    assert data == write(sound, RATE, media_type, depth, said)
    again, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert (rate, len(again)) == (RATE, len(sound))
    assert np.abs(again - sound).max() < {"16": 1e-4, "24": 1e-6, "float": 1e-9}[depth] + 0.05 * ("ogg" in media_type)
    path = tmp_path / "sound"
    path.write_bytes(data)
    assert read_metadata(path) == said
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(Exception, match=r"cut short|says how"):
        read_metadata(path)


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_loudness_is_what_was_asked_for_and_nothing_clips(seconds: float) -> None:
    made = levelled(tone(seconds), RATE, -20)
    assert abs(loudness_of(made, RATE) + 20) < 0.1
    loud = levelled(tone(seconds) + np.eye(1, round(seconds * RATE), 50, dtype=np.float32)[0], RATE, -6)
    assert np.abs(loud).max() <= PEAK + 1e-6
    assert loudness_of(np.zeros(RATE, np.float32), RATE) == -np.inf


def sound_file(sound: np.ndarray, rate: int = RATE, subtype: str = "PCM_16", form: str = "WAV") -> InputFile:
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, subtype, format=form)
    return InputFile("audio/wav", stream.getvalue())


@pytest.mark.parametrize(
    ("sound", "rate", "subtype"),
    [
        (tone(1.0, rate=96_000), 96_000, "PCM_24"),
        (np.stack([tone()] * 6, 1), RATE, "PCM_16"),
        (tone(), RATE, "PCM_U8"),
        (np.clip(tone(size=5.0), -1, 1), RATE, "PCM_16"),
        (tone(1.0, rate=8_000), 8_000, "ULAW"),
        (tone(1.0) * 3, RATE, "FLOAT"),
    ],
)
def test_sounds_of_all_sorts_are_taken(sound: np.ndarray, rate: int, subtype: str) -> None:
    read = read_sound("audio", sound_file(sound, rate, subtype), RATE)
    assert abs(len(read) - RATE) <= 1
    assert np.abs(read).max() <= 1
    spectrum = np.abs(np.fft.rfft(read))
    assert abs(spectrum.argmax() * RATE / len(read) - 440) < 3


def test_of_an_hour_a_minute_is_read() -> None:
    assert len(read_sound("audio", sound_file(np.tile(tone(10.0, rate=8000), 360), 8000), RATE)) == 60 * RATE


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (InputFile("audio/wav", b"RIFF\0\0\0\0WAVEgarbage"), "that can be read"),
        (InputFile("audio/wav", b""), "that can be read"),
        (sound_file(np.zeros(RATE, np.float32)), "that can be heard"),
        (sound_file(tone()[:1]), "at least 0.02 s"),
        (sound_file(np.stack([tone(), -tone()], 1)), "that can be heard"),
        (sound_file(np.full(RATE, np.nan, np.float32), subtype="FLOAT"), "finite"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(file: InputFile, wanted: str) -> None:
    with pytest.raises(InvalidInput, match=wanted) as refused:
        read_sound("audio", file, RATE)
    assert "\n" not in refused.value.message


# --- windows ----------------------------------------------------------------------------------------------------------


class Echo(torch.nn.Module):
    """Answers what it is shown, and remembers what it was told."""

    def forward(self, x, t, context, context_mask, label):  # type: ignore[no-untyped-def]
        self.shown, self.context = x, context
        return x


@given(
    frames=st.integers(1, 700), held=st.booleans(), start=st.floats(0, 4), loops=st.booleans(), batch=st.integers(1, 2)
)
def test_windows_cover_a_sound_and_blend_to_it(frames: int, held: bool, start: float, loops: bool, batch: int) -> None:
    layout = layout_of(frames, 128, 0.016, held, start, loops)
    assert layout.frames >= frames
    assert layout.frames % 4 == 0
    assert all(first % 4 == 0 for first in layout.first)
    network = Echo()
    x = torch.randn(batch, 3, layout.frames, generator=torch.Generator().manual_seed(frames))
    told = torch.zeros(1, 2, 384), torch.ones(1, 2, dtype=torch.bool), torch.tensor([69])
    out = Windows(network, layout)(x, torch.zeros(batch), *told)
    assert (out - x).abs().max() < 1e-5
    assert network.shown.shape == (batch * len(layout.first), 3, 128)
    assert network.context.shape == (batch * len(layout.first), 3, 384)


def test_json_metadata_survives_quotes() -> None:
    said = {"prompt": 'a "loud" \\ \n sound', "n": [1, 2.5, None]}
    from perrin.tags import read_wav

    assert json.loads(read_wav(write(tone(), RATE, "audio/wav", "16", said)) or "") == said
