"""What the network is told: the caption's tokens, its note and its name as labels, and where the window begins.

The name is the caption's part before the first comma. Of one that the model has learnt, the network is told which;
of any other it has the tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perrin.nn.text import Text, text_encoder
from perrin.nn.transformer import time_features
from perrin_audio.notes import NO_NOTE, spoken

__all__ = ["CONTEXT", "Told", "classes", "encode", "labels", "name_in", "start_token"]

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


def name_in(caption: str) -> str:
    """What stands before the first comma, in lower case."""
    return caption.partition(",")[0].strip().lower()


def classes(names: int) -> int:
    """The labels of a network that knows so many names: notes, no note, names. One more stands for no name."""
    return NO_NOTE + 1 + names


def labels(notes: Sequence[int], captions: Sequence[str], names: Sequence[str], most: int | None = None) -> Tensor:
    """(B, 2) of captions without their notes: the note's label and the name's.

    Args:
        notes: B of them.
        captions: B of them.
        names: that the model has learnt.
        most: names that the network has room for; by default as many as there are.
    """
    rows = {name: classes(row) for row, name in enumerate(names)}
    none = classes(len(names) if most is None else most)
    return torch.tensor([[note, rows.get(name_in(said), none)] for note, said in zip(notes, captions, strict=True)])


class Told(NamedTuple):
    """A condition of B windows.

    Attributes:
        tokens: (B, L, 384).
        mask: (B, L) True where there is a token.
        label: (B, 2) of `labels`.
    """

    tokens: Tensor
    mask: Tensor
    label: Tensor

    @classmethod
    def of(
        cls, captions: Sequence[str], device: str = "cpu", names: Sequence[str] = (), most: int | None = None
    ) -> Told:
        """Captions with their notes in them, as people write them; without a start yet.

        Args:
            captions: B of them.
            device: of the tensors.
            names: that the model has learnt.
            most: see `labels`.
        """
        read = [spoken(caption) for caption in captions]
        texts = [caption.text for caption in read]
        text = encode(texts, device)
        label = labels([caption.note for caption in read], texts, names, most)
        return cls(text.tokens, text.mask, label.to(device))

    def starting(self, seconds: Tensor) -> Told:
        """The same with a last token that says at which second (B,) of the sound the window begins."""
        start = start_token(seconds.to(self.tokens.device)).to(self.tokens)
        there = torch.ones_like(self.mask[:, :1])
        return self._replace(tokens=torch.cat([self.tokens, start], 1), mask=torch.cat([self.mask, there], 1))

    @property
    def condition(self) -> dict[str, Tensor]:
        """As the network takes it."""
        return {"context": self.tokens, "context_mask": self.mask, "label": self.label}
