r"""Vocoders that the user has: a HiFi-GAN or BigVGAN checkpoint with its ``config.json`` beside it, made a model.

Such a vocoder reads spectrograms of its own kind. From the model's they are made by what both have in common, the
magnitudes of frequencies: least squares from the model's bands, then the vocoder's bands, on its frames.

.. math:: M' = \ln\max\big(\tfrac{c'}{c}\,W' W^{+} e^{M}, 10^{-5}\big)

with c and c' the windows' sums. What lies above half the model's rate stays silent.

References:
    Kong, Kim and Bae, HiFi-GAN (2020), and its published configurations; Lee et al., BigVGAN (2023).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks, resample

from perrin.errors import ModelError
from perrin.models.card import ModelCard, read_card, write_card
from perrin.models.tensors import read_tensors
from perrin_audio.gan import Generator, plain
from perrin_audio.mel import Mel

__all__ = ["Foreign", "adopt"]

LEAST = 1e-5
"""Below it magnitudes count as it, in spectrograms of this kind."""

SETTINGS = ("sampling_rate", "n_fft", "hop_size", "win_size", "num_mels", "fmin")


class Foreign:
    """A vocoder of another kind of spectrogram.

    Args:
        network: the generator.
        config: its ``config.json``.
        mel: the model's spectrograms.
    """

    def __init__(self, network: torch.nn.Module, config: Mapping[str, Any], mel: Mel) -> None:
        self._network, self._mel, self._rate = network, mel, int(config["sampling_rate"])
        self._hop, self._length = int(config["hop_size"]), int(config["win_size"])
        high = config.get("fmax") or self._rate / 2
        bins = mel.window // 2 + 1
        scale = str(config.get("mel_scale", "slaney"))
        self._bank = melscale_fbanks(
            bins, float(config["fmin"]), float(high), int(config["num_mels"]), mel.rate, "slaney", scale
        )

    def logs(self, logs: Tensor) -> Tensor:
        """(B, num_mels, frames') for the vocoder, of the model's (B, bands, frames)."""
        magnitudes = self._mel.linear(logs) * (self._length / self._mel.window)
        frames = max(1, round(logs.shape[-1] * self._mel.hop / self._mel.rate * self._rate / self._hop))
        there = F.interpolate(magnitudes, frames, mode="linear", align_corners=False)
        made: Tensor = (self._bank.to(logs).T @ there).clamp(min=LEAST).log()
        return made

    def __call__(self, logs: Tensor) -> Tensor:
        """(B, samples) at the model's rate, of (B, bands, frames)."""
        wanted = logs.shape[-1] * self._mel.hop
        sound = resample(self._network(self.logs(logs)), self._rate, self._mel.rate)
        return F.pad(sound, (0, max(0, wanted - sound.shape[-1])))[:, :wanted]


def adopt(file: Path, folder: Path) -> ModelCard | None:
    """Make a model of a checkpoint with ``config.json`` beside it; None if that is no vocoder's.

    Raises:
        ModelError: it is one, and broken, or of a layout that is not known.
    """
    beside = file.parent / "config.json"
    try:
        config = json.loads(beside.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or "upsample_rates" not in config:
        return None
    missing = [name for name in SETTINGS if name not in config]
    if missing:
        raise ModelError(f"{beside.name} lacks {', '.join(missing)}: wanted the one of HiFi-GAN or BigVGAN")
    network = Generator(**config)
    state = {name.removeprefix("generator."): tensor for name, tensor in read_tensors(file).items()}
    try:
        network.load_state_dict(plain(state))
    except RuntimeError as error:
        line = str(error).splitlines()[-1].strip()[:200]
        raise ModelError(f"{file.name} does not fit its config.json: {line}") from None
    if network.hop != config["hop_size"]:
        raise ModelError(f"config.json says hop_size {config['hop_size']}, and its upsample_rates make {network.hop}")
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "generator.safetensors")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.parent.name).strip("-.") or "vocoder"
    card = ModelCard(
        name=name,
        modality="audio",
        base="instruments",
        title=f"{name}, a vocoder",
        summary=f"{'BigVGAN' if network.big else 'HiFi-GAN'}, {config['sampling_rate']} Hz.",
        licence="unknown: its maker's",
        architecture={"generator": {"kind": "generator", **config}},
    )
    write_card(card, folder)
    return read_card(folder)
