r"""Image prompts: a picture is read as a caption, whose tokens stand beside those of the prompt.

A small network, on what EfficientNet-Lite0 sees, gives every caption that it knows a score,

.. math:: s_i = k_i \cdot f\bigl((x - \mu) / \sigma\bigr)

with the captions' keys k, and the best one is what is heard. So a thing is drawn anew, and not its outline; a thing
that no caption names is heard as what it looks like.

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021), section 3.1, for
    naming by the nearest caption.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.inputs import InputFile
from perrin.picture_files import cut_out, read_picture
from perrin.pictures import to_tensor

__all__ = ["LikeNetwork", "read_like"]


def read_like(file: InputFile, width: int, height: int) -> Tensor:
    """The picture in ``file``, cut out of white paper: (1, 4, height, width) in [-1, 1].

    Raises:
        InvalidInput: no picture; names ``like``.
    """
    return to_tensor(np.array(cut_out(read_picture("like", file, width, height)))[None])


class LikeNetwork(nn.Module):
    """Features (B, features) to the scores of captions (B, captions).

    Args:
        features: as many as `perrin_image.metrics.features.Features` gives.
        hidden: between the two layers.
        space: channels of a key.
        captions: how many are known.
        letters: bytes of all of them, one a line.
    """

    mean: Tensor
    deviation: Tensor
    keys: Tensor
    unit: Tensor
    text: Tensor

    def __init__(
        self, features: int = 320, hidden: int = 512, space: int = 128, captions: int = 1, letters: int = 1
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("keys", torch.zeros(captions, space, dtype=torch.int8))
        self.register_buffer("unit", torch.ones(space))
        self.register_buffer("text", torch.zeros(letters, dtype=torch.uint8))
        self.inner, self.out = nn.Linear(features, hidden), nn.Linear(hidden, space)

    def forward(self, features: Tensor) -> Tensor:
        """The scores."""
        seen = (features - self.mean) / self.deviation
        scores: Tensor = (self.out(F.silu(self.inner(seen))) * self.unit) @ self.keys.float().T
        return scores

    def heard(self, features: Tensor) -> list[str]:
        """The best caption of each picture."""
        known = bytes(self.text.cpu().tolist()).decode().split("\n")
        return [known[number] for number in self(features).argmax(1).tolist()]
