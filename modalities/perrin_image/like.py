"""Image prompts: a picture as a few tokens beside those of the prompt, so that something like it is drawn.

A small network reads the picture's latent and answers with tokens of the width that the text encoder gives. The network
that draws attends to them as it does to words, and is not changed. It is trained on a thing in one drawing style and
the same thing in another, so tokens say what is shown, not where.

References:
    Ye et al., IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models (2023), section 3.2;
    Jaegle et al., Perceiver (2021): queries that are learnt.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from perrin.inputs import InputFile
from perrin_image.pictures import to_tensor
from perrin_image.reading import cut_out, read_picture

__all__ = ["LikeNetwork", "read_like"]


def read_like(file: InputFile, width: int, height: int) -> Tensor:
    """The picture in ``file``, cut out of white paper: (1, 4, height, width) in [-1, 1].

    Raises:
        InvalidInput: no picture; names ``like``.
    """
    return to_tensor(np.array(cut_out(read_picture("like", file, width, height)))[None])


class LikeNetwork(nn.Module):
    """Latents (B, channels, side, side) to tokens (B, tokens, context).

    Args:
        channels, side: of the latent.
        tokens: how many it answers with.
        context: their width.
        width, depth, heads, hidden: of the transformer between.
    """

    def __init__(
        self,
        channels: int = 16,
        side: int = 8,
        tokens: int = 6,
        context: int = 384,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        hidden: int = 320,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Linear(channels, width)
        self.places = nn.Parameter(torch.randn(side * side, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(tokens, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, context)

    def forward(self, latent: Tensor) -> Tensor:
        """The tokens of pictures."""
        seen = self.embed(latent.flatten(2).transpose(1, 2)) + self.places
        asked = self.queries.expand(len(seen), -1, -1)
        answers = self.layers(torch.cat([asked, seen], 1))[:, : self.tokens]
        out: Tensor = self.out(self.norm(answers))
        return out
