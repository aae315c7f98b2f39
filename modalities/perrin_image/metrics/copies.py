"""Which generated pictures are copies of what a model was trained on.

A picture's distance is to the nearest picture of training, in features or in pixels. A near copy is one nearer than
19 in 20 held-out pictures are: real pictures that the model has not seen have such neighbours too (one emoji is much
like the next), and only a share beyond theirs, a twentieth, is the model's own doing.

References:
    Carlini et al., Extracting Training Data from Diffusion Models (2023), section 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from perrin.training.watch import nearest

__all__ = ["Copies", "copies"]

SHARE = 0.05
"""Of held-out pictures that count as copies, by definition."""


class Copies(NamedTuple):
    """What was found.

    Attributes:
        share: of pictures nearer than the threshold.
        threshold: distance below which a picture is a near copy.
        median: distance of pictures to their nearest.
        real_median: the same of held-out pictures.
        distance: (N,) of each picture.
        neighbour: (N,) number of each one's nearest.
    """

    share: float
    threshold: float
    median: float
    real_median: float
    distance: Tensor
    neighbour: Tensor

    def worst(self, count: int) -> list[int]:
        """Numbers of the pictures that are nearest to one of training, the nearest first, each neighbour once."""
        chosen: dict[int, int] = {}
        for index in self.distance.argsort().tolist():
            chosen.setdefault(int(self.neighbour[index]), index)
        return list(chosen.values())[:count]


def copies(made: Tensor, held_out: Tensor, training: Tensor, share: float = SHARE) -> Copies:
    """Compare pictures (N, ...), held-out ones (M, ...) and those of training (K, ...), in whatever space they are."""
    distance, neighbour = nearest(made, training)
    real, _ = nearest(held_out, training)
    threshold = float(real.quantile(share))
    near = float((distance < threshold).float().mean())
    return Copies(near, threshold, float(distance.median()), float(real.median()), distance, neighbour)
