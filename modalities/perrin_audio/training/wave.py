"""Trains the diffusion vocoder: a flow over pieces of waveforms, told their mel spectrograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.training.objective import Objective
from perrin.training.times import Times
from perrin_audio.metrics.distances import log_spectral_distance
from perrin_audio.pictures import spectrogram_sheet
from perrin_audio.training.vocoder import Sounds
from perrin_audio.wave import DiffusionVocoder, WaveNetwork

__all__ = ["WaveTask"]

SPREAD = 0.12
"""About the deviation of a waveform."""


class Batch(NamedTuple):
    """Waveforms (B, 1, samples), deviation about 1, and logarithms of their mels (B, bands, frames)."""

    waves: Tensor
    logs: Tensor


class WaveTask(Sounds):
    """Options: ``network`` (of `WaveNetwork`), ``samples`` (of a piece)."""

    weights = "wave"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        super().__init__(options, data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = WaveNetwork(**self.options.get("network", {}))
        self.objective = Objective(times=Times(kind="logit_normal"))
        self._loss = self.objective.loss()

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Pieces of sounds, by chance louder or softer."""
        waves = self.pieces(size, generator)
        return Batch(waves[:, None] / SPREAD, self.mel.log(waves))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says."""
        return self._loss(network, batch.waves, {"logs": batch.logs}, generator)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The log-spectral distance of a few held-out sounds; draws them above what was made of them."""
        real = self.held_out_sounds(4)[:, : int(self.options.get("samples", 16384))]
        made = DiffusionVocoder(network, SPREAD)(self.mel.log(real))  # type: ignore[arg-type]
        spectrogram_sheet(self.mel, torch.cat([real, made]), columns=len(real)).save(path)
        return {"log_spectral_distance": float(log_spectral_distance(made, real))}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as bf16."""
        save_file({k: v.bfloat16().contiguous() for k, v in network.state_dict().items()}, folder / "wave.safetensors")
        return {"architecture": {"wave": {"kind": "wave", "spread": SPREAD, **self.options.get("network", {})}}}
