"""What the network is told: the caption's tokens, the note as a label, and a token for where the window begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perrin.nn.text import Text, text_encoder
from perrin.nn.transformer import time_features
from perrin_audio.notes import spoken

__all__ = ["CONTEXT", "Told", "encode", "start_token"]

CONTEXT = 384
"""Channels of a token."""

SCALE = 10.0
"""Seconds are multiplied by this before their sines are taken."""


def encode(texts: Sequence[str], device: str = "cpu") -> Text:
    """Tokens of captions without their notes."""
    with torch.inference_mode():
        text = text_encoder(device)(list(texts))
    return Text(text.tokens.clone(), text.mask.clone())


def start_token(seconds: Tensor) -> Tensor:
    """(B, 1, 384): says at which second (B,) of the sound a window begins."""
    return time_features(seconds, CONTEXT, SCALE)[:, None]


class Told(NamedTuple):
    """A condition of B windows.

    Attributes:
        tokens: (B, L, 384).
        mask: (B, L) True where there is a token.
        label: (B,) MIDI notes.
    """

    tokens: Tensor
    mask: Tensor
    label: Tensor

    @classmethod
    def of(cls, captions: Sequence[str], device: str = "cpu") -> Told:
        """Captions with their notes in them, as people write them; without a start yet."""
        read = [spoken(caption) for caption in captions]
        text = encode([caption.text for caption in read], device)
        return cls(text.tokens, text.mask, torch.tensor([caption.note for caption in read], device=device))

    def starting(self, seconds: Tensor) -> Told:
        """The same with a last token that says at which second (B,) of the sound the window begins."""
        start = start_token(seconds.to(self.tokens.device)).to(self.tokens)
        there = torch.ones_like(self.mask[:, :1])
        return self._replace(tokens=torch.cat([self.tokens, start], 1), mask=torch.cat([self.mask, there], 1))

    @property
    def condition(self) -> dict[str, Tensor]:
        """As the network takes it."""
        return {"context": self.tokens, "context_mask": self.mask, "label": self.label}
