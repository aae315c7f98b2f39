"""A vocoder that is a diffusion model of the waveform itself, told the mel spectrogram.

Dilated convolutions look at the noisy waveform; the spectrogram, stretched to the samples, is added in every layer.

References:
    Kong et al., DiffWave (2021), section 3; Chen et al., WaveGrad (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin import diffusion as d
from perrin.nn.transformer import time_features

__all__ = ["DiffusionVocoder", "WaveNetwork"]


class _Layer(nn.Module):
    def __init__(self, width: int, bands: int, dilation: int) -> None:
        super().__init__()
        self.time = nn.Linear(width, width)
        self.along = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.told = nn.Conv1d(bands, 2 * width, 1)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, x: Tensor, time: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        value, gate = (self.along(x + self.time(time)[..., None]) + self.told(mel)).chunk(2, dim=1)
        rest, skip = self.out(torch.tanh(value) * torch.sigmoid(gate)).chunk(2, dim=1)
        return (x + rest) * 0.5**0.5, skip


class WaveNetwork(nn.Module):
    """``network(x, t, logs=...)``.

    Args:
        bands: of the spectrogram.
        width: channels.
        layers: of dilated convolutions; the dilation doubles with each, and begins anew after ``cycle``.
        cycle: see above.
        hop: samples of a frame.
        mean, scale: the logarithms are standardised by these.
    """

    def __init__(
        self,
        bands: int = 80,
        width: int = 48,
        layers: int = 20,
        cycle: int = 10,
        hop: int = 256,
        mean: float = -4.0,
        scale: float = 3.0,
    ) -> None:
        super().__init__()
        self.hop, self.mean, self.scale = hop, mean, scale
        self.embed = nn.Conv1d(1, width, 1)
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.ModuleList([_Layer(width, bands, 2 ** (i % cycle)) for i in range(layers)])
        self.mix, self.last = nn.Conv1d(width, width, 1), nn.Conv1d(width, 1, 1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, logs: Tensor) -> Tensor:
        """(B, 1, samples) of a waveform on its way, its times (B,) and spectrogram (B, bands, samples / hop)."""
        mel = F.interpolate((logs - self.mean) / self.scale, x.shape[-1], mode="linear").to(x.dtype)
        time = self.time(time_features(t, 128).to(x.dtype))
        h, total = F.silu(self.embed(x)), torch.zeros((), device=x.device)
        for layer in self.layers:
            h, skip = layer(h, time, mel)
            total = total + skip
        return cast(Tensor, self.last(F.silu(self.mix(F.silu(total * len(self.layers) ** -0.5)))))


class DiffusionVocoder:
    """Samples waveforms; the same for the same spectrogram.

    Args:
        network: trained to say the velocity of a flow over the waveform divided by ``spread``.
        spread: the deviation that waveforms are brought to 1 by.
        steps: of Heun's method.
    """

    def __init__(self, network: WaveNetwork, spread: float, steps: int = 12) -> None:
        self._process = d.process.from_config({"kind": "flow"})
        self._denoiser = d.Denoiser(network, self._process, "velocity")
        self._hop, self._spread, self._steps = network.hop, spread, steps

    def __call__(self, logs: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """(B, samples) of (B, bands, frames)."""
        plan = d.solvers.heun(d.grid.shifted(self._process, self._steps, shift=1.0))
        shape = (1, logs.shape[-1] * self._hop)
        seeds = range(len(logs)) if seeds is None else seeds
        made = d.sample(self._denoiser, plan, shape=shape, seeds=list(seeds), condition={"logs": logs})
        sound: Tensor = made[:, 0] * self._spread
        return sound
