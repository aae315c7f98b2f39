"""How far apart two sounds are."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_spectral_distance"]

LEAST = 1e-5
"""Magnitudes, with a window that sums to 2, below it count as it: -100 dB of full scale."""


def log_spectral_distance(made: Tensor, real: Tensor, window: int = 1024, hop: int = 256) -> Tensor:
    r"""Log-spectral distance of sounds (B, samples), in dB: a scalar.

    .. math:: \frac1T \sum_t \sqrt{\frac1K \sum_k \big(20\lg|X_{tk}| - 20\lg|\hat X_{tk}|\big)^2}

    Magnitudes below -100 dB of full scale count as that.
    """
    hann = torch.hann_window(window, device=made.device)
    a, b = (
        20
        * torch.stft(x, window, hop, window=2 * hann / hann.sum(), return_complex=True).abs().clamp(min=LEAST).log10()
        for x in (made, real)
    )
    return (a - b).square().mean(1).sqrt().mean()
