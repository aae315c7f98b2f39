r"""The representation: a mel spectrogram on a logarithmic scale, standardised band by band.

.. math:: M = (\ln\max(W\,|STFT(x)|, \epsilon) - \mu) / s

Filters, windows and the transform are torchaudio's. What stands in a model's card is all that is needed to compute it
again: sample rate, window, hop, bands, lowest and highest frequency, floor, and the mean and deviation of each band.

References:
    Stevens, Volkmann and Newman (1937), mels; Griffin and Lim (1984), phases from magnitudes; Perraudin, Balazs and
    Sondergaard, A fast Griffin-Lim algorithm (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torchaudio.functional import griffinlim, melscale_fbanks

__all__ = ["Mel"]


@dataclass(frozen=True)
class Mel:
    """Waveforms to spectrograms.

    Attributes:
        rate: samples a second.
        window: samples of a window, and of the transform.
        hop: samples from one frame to the next.
        bands: mel bands.
        low, high: Hz of the lowest and highest filter's edge.
        floor: magnitudes below it count as it.
        mean, deviation: of each band's logarithm over the training data.
    """

    rate: int = 16000
    window: int = 1024
    hop: int = 256
    bands: int = 112
    low: float = 30.0
    high: float = 8000.0
    floor: float = 1e-3
    mean: Sequence[float] = field(default=(), repr=False)
    deviation: Sequence[float] = field(default=(), repr=False)

    @classmethod
    def from_card(cls, values: dict[str, Any]) -> Mel:
        """From what a card says."""
        return cls(**values)

    @cached_property
    def _bank(self) -> Tensor:
        """(window / 2 + 1, bands)."""
        filters: Tensor = melscale_fbanks(self.window // 2 + 1, self.low, self.high, self.bands, self.rate, "slaney")
        return filters

    @cached_property
    def _inverse(self) -> Tensor:
        """(bands, window / 2 + 1): least squares."""
        inverse: Tensor = torch.linalg.pinv(self._bank)
        return inverse

    @cached_property
    def _hann(self) -> Tensor:
        return torch.hann_window(self.window)

    def frames(self, samples: int) -> int:
        """How many frames so many samples have."""
        return samples // self.hop

    def magnitudes(self, sound: Tensor) -> Tensor:
        """(B, window / 2 + 1, frames) of sounds (B, samples): frame i is centred on sample (i + 1/2) hop."""
        side = (self.window - self.hop) // 2
        padded = torch.nn.functional.pad(sound[:, None], (side, side), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, self.window, self.hop, window=self._hann.to(sound), center=False, return_complex=True
        )
        size: Tensor = spectrum.abs()
        return size

    def log(self, sound: Tensor) -> Tensor:
        """(B, bands, frames) natural logarithms, not standardised."""
        return self.log_of(self.magnitudes(sound))

    def log_of(self, sizes: Tensor) -> Tensor:
        """(B, bands, frames) natural logarithms of magnitudes (B, window / 2 + 1, frames)."""
        logs: Tensor = (self._bank.to(sizes).T @ sizes).clamp(min=self.floor).log()
        return logs

    def spread(self, bands: Tensor) -> Tensor:
        """(B, window / 2 + 1, frames): what bands (B, bands, frames) are at each bin on average, by their filters."""
        bank = self._bank.to(bands)
        return bank @ bands / bank.sum(1, keepdim=True).clamp(min=1e-9)

    def standard(self, logs: Tensor) -> Tensor:
        """Standardise (B, bands, frames)."""
        return (logs - self._wide(self.mean, logs)) / self._wide(self.deviation, logs)

    def logs(self, standard: Tensor) -> Tensor:
        """The other way."""
        return standard * self._wide(self.deviation, standard) + self._wide(self.mean, standard)

    def linear(self, logs: Tensor) -> Tensor:
        """Magnitudes (B, window / 2 + 1, frames) whose bands come nearest to logarithms (B, bands, frames)."""
        return (self._inverse.to(logs).T @ logs.exp()).clamp(min=0)

    def griffin_lim(self, logs: Tensor, rounds: int = 60) -> Tensor:
        """(B, samples) of logarithms (B, bands, frames): phases by 60 rounds, the same for the same input."""
        out: Tensor = griffinlim(
            self.linear(logs), self._hann.to(logs), self.window, self.hop, self.window, 1.0, rounds, 0.99, None, False
        )
        # griffinlim centres frames on multiples of hop; ours lie half a hop later.
        lead = self.hop // 2
        return torch.nn.functional.pad(out, (lead, self.hop - lead))[:, : logs.shape[-1] * self.hop]

    def _wide(self, values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
