"""Which instrument a sound is of: a small convolutional network over mel spectrograms, trained on real renders.

It hears neither how loud a sound is as a whole, nor what lies 60 dB below its loudest moment. Its last
features are what the Frechet audio distance here is measured in: they are named for it, and are no one else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FEATURES", "Judge"]

DEEP = 6.9
"""60 dB, in natural logarithms of magnitudes."""

FEATURES = "perrin-instruments"
"""Name of the features, to be said beside every distance in them."""


class Judge(nn.Module):
    """Log-mel spectrograms (B, bands, frames) to logits (B, classes).

    Args:
        classes: instruments.
        widths: channels of the levels, each half as high and wide as the one before.
    """

    def __init__(self, classes: int = 120, widths: Sequence[int] = (24, 48, 96, 160)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.mix = nn.Linear(2 * before, before)
        self.last = nn.Linear(before, classes)

    def features(self, logs: Tensor) -> Tensor:
        """(B, width)."""
        below = (logs - logs.amax((1, 2), keepdim=True)).clamp(min=-DEEP)
        h = self.body((2 * below / DEEP + 1)[:, None]).flatten(2)
        return F.relu(self.mix(torch.cat([h.mean(-1), h.amax(-1)], 1)))

    def forward(self, logs: Tensor) -> Tensor:
        """Logits."""
        return cast(Tensor, self.last(F.dropout(self.features(logs), 0.3, self.training)))
