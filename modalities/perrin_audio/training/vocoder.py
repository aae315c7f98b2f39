r"""Trains the vocoder on real sounds: their magnitudes, and the steps of their phases where there is something to hear.

.. math::
    L = \frac{1}{TK}\sum_{tk} |\ell_{tk} - \hat\ell_{tk}|_H
        + \frac{\sum_{tk} w_{tk} (1 - \cos(\delta_{tk} - \hat\delta_{tk}))}{\sum_{tk} w_{tk}}
        + \frac{\sum_{tk} v_{tk} (1 - \cos(\gamma_{tk} - \hat\gamma_{tk}))}{\sum_{tk} v_{tk}}

with the logarithms of magnitudes under Huber's loss, and as weights of a step the root of the smaller magnitude at its
ends. No sound is made while it learns, which makes a step cheap.

References:
    Masuyama et al., Phase reconstruction based on recurrent phase unwrapping with deep neural networks (2020);
    Takamichi et al., Phase reconstruction from amplitude spectrograms based on von-Mises-distribution deep neural
    network (2018), eq. 8, the loss of an angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.modality import Progress
from perrin.training.data.pack import Pack
from perrin_audio.data.recipe import load_sounds
from perrin_audio.mel import Mel
from perrin_audio.metrics.distances import log_spectral_distance
from perrin_audio.pictures import spectrogram_sheet
from perrin_audio.vocoder import LEAST, Said, Transform, Vocoder

__all__ = ["Sounds", "VocoderTask", "said_loss", "said_of"]

BENT = 0.06
"""Pieces are played faster or slower by up to this share, so that every pitch occurs and not the twelve alone."""


def said_of(spectrum: Tensor, transform: Transform, phased: int) -> Said:
    """What the network should say of complex spectra (B, bins, frames); the first frame's and bin's steps are zero."""
    phase = spectrum[:, :phased].angle()
    forward = phase.diff(dim=2) - transform.advance(spectrum.device)[:phased]
    return Said(spectrum.abs().clamp(min=LEAST).log(), F.pad(forward, (1, 0)), F.pad(phase.diff(dim=1), (0, 0, 1, 0)))


def said_loss(said: Said, real: Said) -> dict[str, Tensor]:
    """``size``, ``forward`` and ``across``; see the module."""
    loud = (0.5 * real.logs[:, : real.forward.shape[1]]).exp()
    weights = {
        "forward": torch.minimum(loud[..., 1:], loud[..., :-1]),
        "across": torch.minimum(loud[:, 1:], loud[:, :-1]),
    }
    apart = {
        "forward": (said.forward - real.forward)[..., 1:],
        "across": (said.across - real.across)[:, 1:],
    }
    losses = {k: (w * (1 - apart[k].cos())).sum() / w.sum().clamp(min=1e-6) for k, w in weights.items()}
    return {"size": F.smooth_l1_loss(said.logs.clamp(min=float(np.log(LEAST))), real.logs, beta=0.5), **losses}


class Sounds:
    """What the tasks that train vocoders share: real sounds, and pieces of them. Options: ``samples`` (of a piece)."""

    sounds: Pack

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._folders = dict(options), dict(folders)
        self.mel = Mel()

    def prepare(self, progress: Progress) -> None:
        """Render and pack the sounds; every fiftieth is held out."""
        self.sounds = load_sounds(self._folders["data"] / "audio", progress)
        number = np.arange(len(self.sounds))
        self.held_out, self.train = number[number % 50 == 0], number[number % 50 != 0]

    def pieces(self, size: int, generator: np.random.Generator) -> Tensor:
        """Pieces of sounds, by chance louder or softer: (size, samples)."""
        length = int(self.options.get("samples", 16384))
        chosen = generator.choice(self.train, size)
        sounds = self.sounds.arrays["sound"]
        out = np.zeros((size, length), np.float32)
        for row, index in enumerate(chosen):
            speed = float(np.exp(generator.uniform(-BENT, BENT)))
            wide = min(sounds.shape[1], int(length * speed) + 2)
            first = 0 if generator.random() < 0.4 else int(generator.integers(sounds.shape[1] - wide + 1))
            piece = sounds[index, first : first + wide].astype(np.float32) / 32767
            at = np.minimum(np.arange(length) * speed, wide - 1)
            out[row] = np.interp(at, np.arange(wide), piece)
        peak = np.abs(out).max(1, keepdims=True)
        gain = np.exp(generator.uniform(np.log(0.1), np.log(0.98), (size, 1))) / np.maximum(peak, 0.05)
        return torch.from_numpy((out * gain).astype(np.float32))

    def held_out_sounds(self, most: int) -> Tensor:
        """(N, samples) of those that are not trained on."""
        return torch.from_numpy(self.sounds.arrays["sound"][self.held_out[:most]].astype(np.float32) / 32767)


class _Saying(nn.Module):
    """The vocoder up to what it says, as it is trained."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, logs: Tensor) -> Said:
        return self.vocoder.say(logs)


class VocoderTask(Sounds):
    """Options: ``network`` (of `Vocoder`), ``samples`` (of a piece)."""

    weights = "vocoder"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        super().__init__(options, data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = _Saying(Vocoder(**self.options.get("network", {})))

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Pieces of sounds: (size, samples)."""
        return self.pieces(size, generator)

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the module says."""
        own = cast(_Saying, self.network).vocoder
        with torch.autocast(batch.device.type, enabled=False):
            logs = self.mel.log(batch)
            real = said_of(own.transform(batch), own.transform, own.phased)
        losses = said_loss(network(logs), real)
        return torch.stack(list(losses.values())).sum(), {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The log-spectral distance on held-out sounds, beside that of Griffin and Lim's phases; draws some."""
        real = self.held_out_sounds(64)
        logs = self.mel.log(real)
        made, guessed = cast(_Saying, network).vocoder(logs), self.mel.griffin_lim(logs)
        few = [0, 20, 40, 60]
        rows = [torch.cat([x[i : i + 1] for i in few if i < len(real)]) for x in (real, made, guessed)]
        spectrogram_sheet(self.mel, torch.cat(rows), columns=len(rows[0])).save(path)
        return {
            "log_spectral_distance": float(log_spectral_distance(made, real)),
            "griffin_lim": float(log_spectral_distance(guessed, real)),
            "mel": float((self.mel.log(made) - logs).abs().mean()),
        }

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as bf16."""
        own = cast(_Saying, network).vocoder
        state = {key: value.bfloat16().contiguous() for key, value in own.state_dict().items()}
        save_file(state, folder / "vocoder.safetensors")
        return {"architecture": {"vocoder": {"kind": "vocoder", **self.options.get("network", {})}}}
