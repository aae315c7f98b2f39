r"""From a mel spectrogram to a waveform: convolutions at the frames' own rate, then one inverse Fourier transform.

.. math::
    (\ln A, \varphi) = f(M), \qquad x = ISTFT\big(A\, e^{i\varphi}\big)

References:
    Siuzdak, Vocos: Closing the gap between time-domain and Fourier-based neural vocoders (2023); Liu et al., A ConvNet
    for the 2020s (2022), the block.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from perrin_audio.mel import Mel

__all__ = ["GriffinLim", "Vocoder", "Vocodes"]

LOUDEST = 100.0
"""Magnitudes are at most this; a sine of full scale has 256."""


class Vocodes(Protocol):
    """Anything that makes sounds of spectrograms."""

    def __call__(self, logs: Tensor) -> Tensor:
        """(B, samples) of logarithms of mel spectrograms (B, bands, frames)."""
        ...


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gain = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.along(x).transpose(1, 2))
        h = self.gain * self.down(nn.functional.gelu(self.up(h)))
        out: Tensor = x + h.transpose(1, 2)
        return out


class Vocoder(nn.Module):
    """``vocoder(logs)``; see the module.

    Args:
        bands: of the spectrogram.
        width: channels.
        hidden: inner width of a block.
        depth: blocks.
        window, hop: of the transform.
        mean, scale: the logarithms are standardised by these before anything else.
    """

    def __init__(
        self,
        bands: int = 80,
        width: int = 160,
        hidden: int = 480,
        depth: int = 6,
        window: int = 1024,
        hop: int = 256,
        mean: float = -4.0,
        scale: float = 3.0,
    ) -> None:
        super().__init__()
        self.window, self.hop, self.mean, self.scale = window, hop, mean, scale
        self.embed = nn.Conv1d(bands, width, 7, padding=3)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList([_Block(width, hidden, 1 / depth) for _ in range(depth)])
        self.out = nn.Linear(width, window + 2)

    def forward(self, logs: Tensor) -> Tensor:
        """(B, frames * hop) of (B, bands, frames)."""
        x = self.embed((logs - self.mean) / self.scale)
        x = self.first(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        size, phase = self.out(self.last(x.transpose(1, 2))).float().transpose(1, 2).chunk(2, dim=1)
        size = size.clamp(max=6.0).exp().clamp(max=LOUDEST)
        return self._sound(torch.complex(size * phase.cos(), size * phase.sin()))

    def _sound(self, spectrum: Tensor) -> Tensor:
        """Overlap and add (B, bins, frames): frame i is centred on sample (i + 1/2) hop, as in `perrin_audio.mel`."""
        hann = torch.hann_window(self.window, device=spectrum.device)
        pieces = torch.fft.irfft(spectrum, self.window, dim=1) * hann[:, None]
        count = spectrum.shape[-1]
        length = (count - 1) * self.hop + self.window

        def added(parts: Tensor) -> Tensor:
            whole = nn.functional.fold(parts, (1, length), (1, self.window), stride=(1, self.hop))
            return whole[:, 0, 0]

        weight = added(hann.square()[None, :, None].expand(1, self.window, count))
        side = (self.window - self.hop) // 2
        return added(pieces)[:, side : side + count * self.hop] / weight[:, side : side + count * self.hop]


class GriffinLim:
    """The vocoder that needs no training.

    Args:
        mel: how the spectrograms were made.
    """

    def __init__(self, mel: Mel) -> None:
        self._mel = mel

    def __call__(self, logs: Tensor) -> Tensor:
        """(B, samples) of (B, bands, frames)."""
        return self._mel.griffin_lim(logs)
