r"""From a mel spectrogram to a waveform: a network at the frames' own rate says magnitudes and how phases go on.

Of every frame t and bin k it says the logarithm of the magnitude, by how much the phase advances since the frame before
(the instantaneous frequency), and how it differs from the bin below (the group delay), both as deviations from a sine
at the bin's centre and an impulse at the frame's. Phases are the sum of these steps, surest neighbours first,

.. math::
    z_{tk} = m\,(u_{t-1,k}\,e^{i(\omega_k h + \delta_{tk})}) + \lambda m\,(u_{t,k-1}\,e^{i\gamma_{tk}}) +
        \lambda m\,(u_{t,k+1}\,e^{-i\gamma_{t,k+1}}), \qquad u_{tk} = z_{tk} / |z_{tk}|

with m the smaller magnitude of the two ends of each step. A few rounds of Griffin and Lim's make the windows agree.

Magnitudes x, as the network says them, are smooth. Before the phases they are brought to what the bands b ask for, with
W the filters, in a few rounds of

.. math:: x_k \leftarrow x_k \exp\frac{\sum_b W_{kb} \ln(b_b / (W^T x)_b)}{\sum_b W_{kb}}

Convolutions give the same for the same, so a network that says phases themselves says them equal in every frame of a
steady tone, which then is a multiple of the frame rate and out of tune. Of a tone's steps the same is right.

References:
    Siuzdak, Vocos: Closing the gap between time-domain and Fourier-based neural vocoders (2023), for a network at the
    frames' rate before an inverse transform; Masuyama et al., Phase reconstruction based on recurrent phase unwrapping
    with deep neural networks (2020), for what it says of phases; Prusa, Balazs and Sondergaard, A noniterative method
    for reconstruction of phase from STFT magnitude (2017), for summing the surest first; Byrne, Iterative image
    reconstruction algorithms based on cross-entropy minimization (1993), the simultaneous multiplicative algebraic
    reconstruction technique, for the bands; Liu et al., A ConvNet for the 2020s (2022), the block.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin_audio.mel import Mel

__all__ = ["GriffinLim", "Said", "Transform", "Vocoder", "Vocodes"]

LOUDEST = 512.0
"""Magnitudes are at most this; a sine of full scale has 256."""

LEAST = 2.5e-3
"""Magnitudes below it count as it: -100 dB of a sine of full scale."""

ACROSS = 0.5
"""Lambda: what a step between bins counts beside one between frames."""

SWEEPS = 4
"""How often the bins of a frame look at their neighbours."""

MATCHED = 5
"""Rounds in which magnitudes come to the bands that are asked for."""

FARTHEST = math.log(4)
"""Most that a round changes a band by."""


class Vocodes(Protocol):
    """Anything that makes sounds of spectrograms."""

    def __call__(self, logs: Tensor) -> Tensor:
        """(B, samples) of logarithms of mel spectrograms (B, bands, frames)."""
        ...


class Transform:
    """The short-time Fourier transform of `perrin_audio.mel`, phases counted from the middle of each frame.

    Args:
        window: samples of a window.
        hop: samples from one frame to the next; frame i is centred on sample (i + 1/2) hop.
    """

    def __init__(self, window: int, hop: int) -> None:
        self.window, self.hop, self.side = window, hop, (window - hop) // 2
        self.bins = window // 2 + 1

    def advance(self, device: torch.device) -> Tensor:
        """(bins, 1): radians by which a sine at a bin's centre goes on in a hop."""
        return 2 * math.pi * self.hop / self.window * torch.arange(self.bins, device=device)[:, None]

    def _middle(self, device: torch.device) -> Tensor:
        """(bins, 1) signs that count phases from the middle of a window instead of its beginning."""
        return 1.0 - 2.0 * (torch.arange(self.bins, device=device)[:, None] % 2)

    def __call__(self, sound: Tensor) -> Tensor:
        """Complex (B, bins, frames) of (B, samples)."""
        padded = F.pad(sound[:, None], (self.side, self.side), mode="reflect")[:, 0]
        hann = torch.hann_window(self.window, device=sound.device)
        found: Tensor = torch.stft(padded, self.window, self.hop, window=hann, center=False, return_complex=True)
        return found * self._middle(sound.device)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """(B, frames * hop) of complex (B, bins, frames): least squares."""
        hann = torch.hann_window(self.window, device=spectrum.device)
        pieces = torch.fft.irfft(spectrum * self._middle(spectrum.device), self.window, dim=1) * hann[:, None]
        count = spectrum.shape[-1]
        length = (count - 1) * self.hop + self.window

        def added(parts: Tensor) -> Tensor:
            return F.fold(parts, (1, length), (1, self.window), stride=(1, self.hop))[:, 0, 0]

        inside = slice(self.side, self.side + count * self.hop)
        weight = added(hann.square()[None, :, None].expand(1, self.window, count))
        return added(pieces)[:, inside] / weight[:, inside]


class Said(NamedTuple):
    """What the network says of B sounds.

    Attributes:
        logs: (B, bins, frames) natural logarithms of magnitudes.
        forward: (B, phased, frames) radians between a frame and the one before, less those of the bin's centre.
        across: (B, phased, frames) radians between a bin and the one below.
    """

    logs: Tensor
    forward: Tensor
    across: Tensor


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gain = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.along(x).transpose(1, 2))
        h = self.gain * self.down(F.gelu(self.up(h)))
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
        rate, low, high: of the filters, as in `Mel`.
        phased: the lowest so many bins have phases that are said; above them, each is a sine at its bin's centre.
        rounds: of Griffin and Lim's, at the end.
        mean, scale: the logarithms are standardised by these before anything else.
    """

    def __init__(
        self,
        bands: int = 112,
        width: int = 160,
        hidden: int = 320,
        depth: int = 5,
        window: int = 1024,
        hop: int = 256,
        rate: int = 16000,
        low: float = 30.0,
        high: float = 8000.0,
        phased: int = 256,
        rounds: int = 8,
        mean: float = -4.0,
        scale: float = 3.0,
    ) -> None:
        super().__init__()
        self.transform, self.phased, self.rounds = Transform(window, hop), phased, rounds
        self.mean, self.scale = mean, scale
        self._mel = Mel(rate, window, hop, bands, low, high)
        self.embed = nn.Conv1d(bands, width, 3, padding=1)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList([_Block(width, hidden, 1 / depth) for _ in range(depth)])
        self.out = nn.Linear(width, self.transform.bins + 2 * phased)

    def say(self, logs: Tensor) -> Said:
        """Of logarithms of mel spectrograms (B, bands, frames)."""
        x = self.embed((logs - self.mean) / self.scale)
        x = self.first(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        said = self.out(self.last(x.transpose(1, 2))).float().transpose(1, 2)
        sizes, forward, across = said.split([self.transform.bins, self.phased, self.phased], dim=1)
        return Said(sizes, forward, across)

    def forward(self, logs: Tensor) -> Tensor:
        """(B, frames * hop) of (B, bands, frames)."""
        said = self.say(logs)
        sizes = self.matched(said.logs.clamp(max=math.log(LOUDEST)).exp(), logs)
        phases = self.phases(sizes, said.forward, said.across)
        for _ in range(self.rounds):
            found = self.transform(self.transform.inverse(sizes * phases))
            phases = found / found.abs().clamp(min=1e-9)
        return self.transform.inverse(sizes * phases)

    def matched(self, sizes: Tensor, logs: Tensor) -> Tensor:
        """Magnitudes (B, bins, frames) whose bands are nearer to ``logs``; a bin that no band sees stays as it is."""
        for _ in range(MATCHED):
            apart = logs - self._mel.log_of(sizes)
            sizes = sizes * self._mel.spread(apart.clamp(-FARTHEST, FARTHEST)).exp()
        return sizes

    def phases(self, sizes: Tensor, forward: Tensor, across: Tensor) -> Tensor:
        """Complex numbers of size one (B, bins, frames), from magnitudes and the steps between phases."""
        more = (0, 0, 0, sizes.shape[1] - forward.shape[1])
        turn = F.pad(forward, more) + self.transform.advance(sizes.device)
        along = torch.polar(torch.ones_like(turn), turn)
        up = F.pad(across, more)[:, 1:]
        beside = torch.polar(torch.ones_like(up), up)
        u = torch.ones_like(along[..., 0])
        before = torch.zeros_like(sizes[..., 0])
        found = []
        for t in range(sizes.shape[-1]):
            size = sizes[..., t]
            kept = u * along[..., t] * torch.minimum(before, size) + 1e-9
            step = ACROSS * torch.minimum(size[:, 1:], size[:, :-1]) * beside[..., t]
            u = kept / kept.abs()
            for _ in range(SWEEPS):
                z = kept + F.pad(step * u[:, :-1], (1, 0)) + F.pad(step.conj() * u[:, 1:], (0, 1))
                u = z / z.abs().clamp(min=1e-9)
            before = size
            found.append(u)
        return torch.stack(found, -1)


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
