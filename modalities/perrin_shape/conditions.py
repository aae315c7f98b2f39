"""What the network is told: words, a token for the sizes in them, a class, a picture, a part of the shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perrin.nn.pictures import PictureNetwork
from perrin.nn.text import Text, text_encoder
from perrin.nn.transformer import time_features
from perrin_shape.captions import CLASSES, class_of, plain, sizes
from perrin_shape.network import LATENTS, PICTURE

__all__ = ["CONTEXT", "NO_CLASS", "Told", "encode", "padded", "part_of", "picture_tokens"]

CONTEXT = 384
"""Channels of a token of words."""

NO_CLASS = len(CLASSES)
"""The label that says nothing."""


def encode(captions: Sequence[str], device: str = "cpu") -> Text:
    """Tokens of plain captions, the last of each for its sizes, which counts where there are some."""
    with torch.inference_mode():
        text = text_encoder(device)(list(captions))
    numbers = torch.zeros(len(captions), 3)
    for row, caption in enumerate(captions):
        for column, size in enumerate(sizes(caption)):
            numbers[row, column] = min(size, 1000.0)
    told = time_features(numbers.flatten(), CONTEXT // 3, 1.0).view(-1, 3, CONTEXT // 3) * (numbers > 0)[..., None]
    token = told.flatten(1)[:, None].to(text.tokens)
    there = (numbers > 0).any(1, keepdim=True).to(text.mask.device)
    return Text(torch.cat([text.tokens, token], 1), torch.cat([text.mask, there], 1))


def picture_tokens(pictures: NDArray[np.uint8], network: PictureNetwork) -> Tensor:
    """(B, 16, 320) of pictures (B, H, W, 3) on white."""
    colours = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return network.of(colours).flatten(2).transpose(1, 2).clone()


class Told(NamedTuple):
    """A condition of B shapes.

    Attributes:
        tokens: (B, L, 384).
        mask: (B, L) True where there is a token.
        label: (B,) classes.
        picture: (B, 16, 320), zeros where there is none.
        part: (B, C + 1, 8, 8, 8), zeros where there is none.
    """

    tokens: Tensor
    mask: Tensor
    label: Tensor
    picture: Tensor
    part: Tensor

    @classmethod
    def of(
        cls, captions: Sequence[str], channels: int, categories: Sequence[str | None] = (), device: str = "cpu"
    ) -> Told:
        """Captions as people write them; classes are those of ``categories``, or where None of the captions' words."""
        known = [plain(caption) for caption in captions]
        text = encode(known, device)
        named = [
            (categories[row] if row < len(categories) else None) or (class_of(caption) if caption else "other")
            for row, caption in enumerate(known)
        ]
        label = [NO_CLASS if name == "other" else CLASSES.index(name) for name in named]
        return cls(
            text.tokens.clone(),
            text.mask.clone(),
            torch.tensor(label, device=device),
            torch.zeros(len(known), *PICTURE, device=device),
            torch.zeros(len(known), channels + 1, LATENTS, LATENTS, LATENTS, device=device),
        )

    @property
    def condition(self) -> dict[str, Any]:
        """As the network takes it."""
        return {
            "context": self.tokens,
            "context_mask": self.mask,
            "label": self.label,
            "picture": self.picture,
            "part": self.part,
        }


def part_of(latents: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    """(B, C + 1, 8, 8, 8): latents (B, C, 8, 8, 8) of what is given where it has points (B, n, 3), and 1 there, else 0.

    A point whose normal is zero is none.
    """
    cell = ((points + 1) * (LATENTS / 2)).floor().clamp(0, LATENTS - 1).long()
    index = (cell[..., 0] * LATENTS + cell[..., 1]) * LATENTS + cell[..., 2]
    there = (normals.abs().sum(-1) > 0).to(latents)
    mask = latents.new_zeros(len(latents), LATENTS**3).scatter_add_(1, index, there).clamp(max=1)
    shaped = mask.view(-1, 1, LATENTS, LATENTS, LATENTS)
    return torch.cat([latents * shaped, shaped], 1)


def padded(parts: Sequence[Text]) -> Text:
    """Texts of different lengths as one; where the last token is the one for sizes, it stays the last."""
    longest = max(part.tokens.shape[1] for part in parts)

    def wide(x: Tensor) -> Tensor:
        short = longest - x.shape[1]
        return torch.cat([x[:, :-1], torch.zeros_like(x[:, :1]).expand(-1, short, *x.shape[2:]), x[:, -1:]], 1)

    return Text(torch.cat([wide(part.tokens) for part in parts]), torch.cat([wide(part.mask) for part in parts]))
