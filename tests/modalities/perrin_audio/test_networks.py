"""Networks of other people's layout, against independent ones; the tasks that train ours, for a few steps."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from scipy.signal import resample_poly
from torch.nn.utils.parametrizations import weight_norm
from torchaudio.functional import melscale_fbanks

from perrin.errors import InvalidInput, ModelError
from perrin.modality import validate
from perrin.models.card import read_card
from perrin.training.recipe import read_recipe
from perrin.training.run import train
from perrin_audio.data import digits, recipe
from perrin_audio.data.score import DRUMS, INSTRUMENTS, held_out, scores
from perrin_audio.face import modality
from perrin_audio.foreign import Foreign, adopt
from perrin_audio.gan import Generator, plain
from perrin_audio.mel import Mel
from perrin_audio.metrics.networks import Tagger, VGGish, kl_divergence
from perrin_audio.metrics.pitch import within
from perrin_audio.notes import number_of
from perrin_audio.runtime import AudioRuntime

CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [4, 4, 2],
    "upsample_kernel_sizes": [8, 8, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    "num_mels": 80,
}


# --- vocoders of other people -----------------------------------------------------------------------------------------


def test_hifi_gan_is_that_of_transformers() -> None:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        model_in_dim=80,
        upsample_initial_channel=32,
        upsample_rates=[4, 4, 2],
        upsample_kernel_sizes=[8, 8, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
    )
    torch.manual_seed(0)
    theirs = SpeechT5HifiGan(config).eval()
    state = {name.replace("upsampler.", "ups."): tensor for name, tensor in theirs.state_dict().items()}
    ours = Generator(**CONFIG).eval()
    ours.load_state_dict({name: tensor for name, tensor in plain(state).items() if name not in ("mean", "scale")})
    logs = torch.randn(2, 80, 12)
    with torch.inference_mode():
        assert (ours(logs) - theirs(logs.transpose(1, 2))).abs().max() < 1e-4
    assert ours(logs).shape == (2, 12 * ours.hop)


def test_weight_normalisation_is_taken_out() -> None:
    made = torch.nn.Sequential(weight_norm(torch.nn.Conv1d(3, 5, 3)))
    found = plain(made.state_dict())
    assert found.keys() == {"0.weight", "0.bias"}
    assert (found["0.weight"] - made[0].weight).abs().max() < 1e-6


def test_a_periodic_activation_at_twice_the_rate_folds_less() -> None:
    """Of what sin^2 adds beyond the sample rate, most does not come back at another frequency."""
    big = Generator(**CONFIG, activation="snakebeta", use_tanh_at_final=False)
    assert big.activation_post is not None
    wave = torch.sin(2 * math.pi * 0.35 * torch.arange(400))[None, None].expand(1, 4, -1)

    def folded(out: torch.Tensor) -> float:  # 2 x 0.35 = 0.7, which folds to 0.3
        out = out[0, 0, 50:-50].detach()
        spectrum = torch.fft.rfft((out - out.mean()) * torch.hann_window(len(out))).abs()
        return float(spectrum[((torch.arange(len(spectrum)) / len(out)) - 0.3).abs() < 0.01].max())

    assert folded(big.activation_post(wave)) < 0.3 * folded(big.activation_post.act(wave))


def test_a_config_of_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="wanted that of HiFi-GAN or BigVGAN"):
        Generator(num_mels=80)


# --- networks of published metrics ------------------------------------------------------------------------------------


def test_vggish_takes_the_users_weights(tmp_path: Path) -> None:
    widths = [(1, 64, "0"), (64, 128, "3"), (128, 256, "6"), (256, 256, "8"), (256, 512, "11"), (512, 512, "13")]
    state = {}
    for a, b, name in widths:
        state[f"features.{name}.weight"] = torch.randn(b, a, 3, 3) / (3 * a**0.5)
        state[f"features.{name}.bias"] = torch.zeros(b)
    for number, (a, b) in enumerate(((12288, 4096), (4096, 4096), (4096, 128))):
        state[f"embeddings.{2 * number}.weight"] = torch.empty(b, a).normal_(0, a**-0.5)
        state[f"embeddings.{2 * number}.bias"] = torch.zeros(b)
    save_file(state, tmp_path / "vggish.safetensors")
    network = VGGish(tmp_path / "vggish.safetensors")
    sounds = torch.randn(2, 32000) * 0.1
    assert network.pieces(sounds).shape == (4, 96, 64)
    features = network(sounds)
    assert features.shape == (4, 128)
    assert torch.allclose(network(sounds[1:]), features[2:], atol=1e-4)
    with pytest.raises(InvalidInput, match=r"0\.96 s"):
        network(sounds[:, :8000])
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match="no weights of VGGish"):
        VGGish(tmp_path / "wrong.safetensors")


def test_a_tagger_without_a_mel_bank_is_refused(tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match=r"fc_audioset\.weight, logmel_extractor\.melW missing"):
        Tagger(tmp_path / "wrong.safetensors")


def test_the_divergence_of_probabilities() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25]])
    assert kl_divergence(p, p) == 0
    assert math.isclose(kl_divergence(p, torch.tensor([[0.25, 0.5, 0.25]])), 0.25 * math.log(2), rel_tol=1e-6)


def test_within_fifty_cents() -> None:
    assert within(440.0, 69)
    assert within(452.0, 69)
    assert not within(454.0, 69)
    assert not within(880.0, 69)
    assert not within(float("nan"), 69)


# --- what is learnt from ----------------------------------------------------------------------------------------------


def test_scores_are_always_the_same_and_leave_the_held_out_ones_out() -> None:
    first, apart = list(scores()), held_out()
    assert first == list(scores())
    assert len(apart) == 60
    asked = {(INSTRUMENTS[one.program], one.note) for one in first if one.program < len(INSTRUMENTS)}
    assert not asked & apart
    assert {(name, note) for name in INSTRUMENTS for note in range(36, 85)} - asked == apart
    assert len({one.caption for one in first if one.kind == "drum"}) == 3 * len(DRUMS)
    assert next(one.text for one in first if one.kind == "phrase").count(" from ") == 1


@pytest.fixture
def short_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    some = [one for one in digits.utterances() if one.voice == "en-us" and one.speed == 175][:40]
    monkeypatch.setattr(recipe, "utterances", lambda: iter(some))


@pytest.mark.usefixtures("short_digits")
def test_spoken_digits_train_for_twenty_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path))
    network = "{width: 48, depth: 1, heads: 3, hidden: 64, patch: 4}"
    asked = read_recipe("audio/digits", [f"diffusion.options.network={network}", "diffusion.batch=8"])
    train(asked, out=tmp_path / "out", dry_run=20)
    lines = [json.loads(line) for line in (tmp_path / "out" / "diffusion" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 20
    assert np.isfinite(lines[-1]["evaluation"]["held_out_loss"])


def test_a_folder_of_sounds_with_captions_is_read(tmp_path: Path) -> None:
    time = np.arange(24000) / 24000
    for name, hertz in (("a", 440.0), ("c", 261.6)):
        soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * hertz * time), 24000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(24000), 24000)
    (tmp_path / "a.txt").write_text("sine, note A4, soft\n")
    found = recipe.load_mels(tmp_path / "cache", lambda *_: None, {"folder": str(tmp_path)})
    assert [record.captions for record in found.records] == [("sine, soft",), ("",)]
    assert found.arrays["note"].tolist() == [number_of("A4"), 128]
    assert found.arrays["mel"].shape == (2, 112, 128)
    assert found.report["dropped"] == {"silence": 1}


# --- a vocoder that the user has --------------------------------------------------------------------------------------

HOW = {"sampling_rate": 22050, "n_fft": 1024, "hop_size": 32, "win_size": 1024, "fmin": 0, "fmax": 8000}


def checkpoint(folder: Path, **settings: Any) -> Path:
    """A generator as it is published: a pickle of a state with weight normalisation, and its settings beside it."""
    folder.mkdir(parents=True)
    config = {**CONFIG, **HOW, **settings}
    network = Generator(**config)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(".weight"):
            norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))
            state |= {f"{name}_g": norm, f"{name}_v": tensor}
        else:
            state[name] = tensor
    torch.save({"generator": state}, folder / "g.pt")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "g.pt"


def test_a_spectrogram_of_one_kind_is_made_one_of_another() -> None:
    """What is made of the model's bands is near what the vocoder's own would be, where there is something to hear."""
    mel, config = Mel(), {**CONFIG, **HOW, "hop_size": 256}
    sound = sum(0.2 * np.sin(2 * np.pi * hertz * np.arange(32768) / 16000) for hertz in (220, 880, 2500))
    made = Foreign(torch.nn.Identity(), config, mel).logs(mel.log(torch.tensor(sound, dtype=torch.float32)[None]))
    wave = torch.tensor(resample_poly(sound, 441, 320), dtype=torch.float32)[None]
    wave = torch.nn.functional.pad(wave[:, None], (384, 384), mode="reflect")[:, 0]
    size = torch.stft(wave, 1024, 256, window=torch.hann_window(1024), center=False, return_complex=True).abs()
    bank = melscale_fbanks(513, 0.0, 8000.0, 80, 22050, "slaney", "slaney")
    own = (bank.T @ size).clamp(min=1e-5).log()
    frames = min(made.shape[-1], own.shape[-1])
    assert abs(made.shape[-1] - own.shape[-1]) <= 1
    loud = own[0, :, 5 : frames - 5] > own.max() - 3
    assert loud.any()
    assert (made[0, :, 5 : frames - 5] - own[0, :, 5 : frames - 5]).abs()[loud].mean() < 0.7


def test_a_checkpoint_becomes_a_vocoder_by_name(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    file = checkpoint(tmp_path / "my vocoder")
    card = adopt(file, tmp_path / "aside")
    assert card is not None
    assert card.name == "my-vocoder"
    monkeypatch.setenv("PERRIN_MODELS", f"{tmp_path / 'models'}")
    shutil.copytree(card.folder, tmp_path / "models" / card.name)
    runtime = AudioRuntime.load(read_card(small / "small"), "cpu")
    p = validate(modality, {"prompt": "violin", "seed": 1, "vocoder": "my-vocoder"}).resolved(runtime.card)
    (heard,) = runtime.decode(runtime.start(p).run(), p)  # type: ignore[arg-type]
    assert len(heard.sound) == 32000
    assert np.isfinite(heard.sound).all()
    state = torch.load(file, weights_only=True)["generator"]
    state.pop("conv_pre.bias")
    torch.save({"generator": state}, file)
    with pytest.raises(ModelError, match=r"does not fit its config\.json"):
        adopt(file, tmp_path / "again")
    (tmp_path / "my vocoder" / "config.json").write_text("{}")
    assert adopt(file, tmp_path / "again") is None
