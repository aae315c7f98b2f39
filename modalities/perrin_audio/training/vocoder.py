r"""Trains the vocoder on real sounds.

.. math::
    L = \sum_r \Big( \|\ln|X_r| - \ln|\hat X_r|\|_1 + \frac{\|\,|X_r| - |\hat X_r|\,\|}{\||X_r|\|} \Big)
        + \gamma\|M - \hat M\|_1

over transforms of several lengths r, and the mel spectrogram. Several lengths with hops of their own pin the phases: a
sound whose windows do not fit together has other magnitudes between them.

References:
    Yamamoto et al., Parallel WaveGAN (2020), eq. 4-6 (spectral convergence and log magnitudes at several lengths).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.modality import Progress
from perrin.training.data.pack import Pack
from perrin_audio.data.recipe import load_sounds
from perrin_audio.mel import Mel
from perrin_audio.metrics.distances import log_spectral_distance
from perrin_audio.pictures import spectrogram_sheet
from perrin_audio.vocoder import Vocoder

__all__ = ["Sounds", "VocoderTask", "spectral_loss"]

LENGTHS = (2048, 1024, 512, 256, 128)
LEAST = 1e-4
"""Magnitudes, with windows that sum to 1, below it count as it."""


def spectral_loss(made: Tensor, real: Tensor) -> Tensor:
    """Of sounds (B, samples)."""
    total = torch.zeros((), device=made.device)
    for length in LENGTHS:
        window = torch.hann_window(length, device=made.device)
        a, b = (
            torch.stft(x, length, length // 4, window=window / window.sum() * 2, return_complex=True).abs()
            for x in (made, real)
        )
        apart = (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1).clamp(min=1e-3)
        total = total + ((a + LEAST).log() - (b + LEAST).log()).abs().mean() + apart.clamp(max=5).mean()
    return total / len(LENGTHS)


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
            first = 0 if generator.random() < 0.4 else int(generator.integers(sounds.shape[1] - length + 1))
            out[row] = sounds[index, first : first + length] / 32767
        peak = np.abs(out).max(1, keepdims=True)
        gain = np.exp(generator.uniform(np.log(0.1), np.log(0.98), (size, 1))) / np.maximum(peak, 0.05)
        return torch.from_numpy((out * gain).astype(np.float32))

    def held_out_sounds(self, most: int) -> Tensor:
        """(N, samples) of those that are not trained on."""
        return torch.from_numpy(self.sounds.arrays["sound"][self.held_out[:most]].astype(np.float32) / 32767)


class VocoderTask(Sounds):
    """Options: ``network`` (of `Vocoder`), ``samples`` (of a piece), ``mel`` (gamma)."""

    weights = "vocoder"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        super().__init__(options, data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = Vocoder(**self.options.get("network", {}))

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Pieces of sounds: (size, samples)."""
        return self.pieces(size, generator)

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the module says."""
        with torch.autocast(batch.device.type, enabled=False):
            logs = self.mel.log(batch)
        made = network(logs)
        with torch.autocast(batch.device.type, enabled=False):
            spectral = spectral_loss(made.float(), batch)
            mel = (self.mel.log(made.float()) - logs).abs().mean()
        return spectral + float(self.options.get("mel", 1.0)) * mel, {
            "spectral": spectral.detach(),
            "mel": mel.detach(),
        }

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The log-spectral distance on held-out sounds, beside that of Griffin and Lim's phases; draws some."""
        real = self.held_out_sounds(64)
        logs = self.mel.log(real)
        made, guessed = network(logs), self.mel.griffin_lim(logs)
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
        state = {key: value.bfloat16().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "vocoder.safetensors")
        return {"architecture": {"vocoder": {"kind": "vocoder", **self.options.get("network", {})}}}
