"""Which class a shape is of: a small network over points, trained on real shapes; a measure of models, not one.

Every point and its normal become features, the greatest and the mean of which say what the whole is; each point sees
these, once, before the last look. The order of the points does not matter.

References:
    Qi, Su, Mo and Guibas, PointNet (2017), on the greatest feature of all points.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FEATURES", "Judge"]

FEATURES = "perrin-shapes"
"""Name of the features, to be said beside every distance in them."""


class Judge(nn.Module):
    """Points with normals (B, n, 6) to logits (B, classes).

    Args:
        classes: how many.
        width: of a point's features.
    """

    def __init__(self, classes: int, width: int = 96) -> None:
        super().__init__()
        self.first = _layers(6, width // 2, width, width)
        self.second = _layers(3 * width, 2 * width, 2 * width)
        self.mix = nn.Linear(4 * width, 2 * width)
        self.last = nn.Linear(2 * width, classes)

    def features(self, points: Tensor) -> Tensor:
        """(B, 2 * width)."""
        h = self.first(points.transpose(1, 2))
        whole = torch.cat([h.amax(2), h.mean(2)], 1)
        h = self.second(torch.cat([h, whole[:, :, None].expand(-1, -1, h.shape[2])], 1))
        return F.relu(self.mix(torch.cat([h.amax(2), h.mean(2)], 1)))

    def forward(self, points: Tensor) -> Tensor:
        """Logits."""
        return cast(Tensor, self.last(F.dropout(self.features(points), 0.3, self.training)))


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in pairwise(widths):
        layers += [nn.Conv1d(before, width, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers)
