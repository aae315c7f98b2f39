"""Textual inversion: a new word, learnt as a few vectors that the frozen network attends to beside the prompt's tokens.

References:
    Gal et al., An Image is Worth One Word (2022), section 3; here the vectors stand behind the text encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin.errors import InvalidInput, ModelError

__all__ = ["InversionOptions", "Inverted", "load_word", "save_word", "say"]


class InversionOptions(BaseModel):
    """A word to be learnt.

    Attributes:
        word: how a prompt names it, in angle brackets.
        vectors: how many stand for it.
        like: a text that is near, to begin with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    vectors: int = Field(4, ge=1, le=32)
    like: str = "thing"


def say(context: Tensor, mask: Tensor | None, word: Tensor) -> tuple[Tensor, Tensor]:
    """A context (B, L, width) with a word's vectors (n, width) after it, and its mask."""
    batch, length, _ = context.shape
    there = torch.ones(batch, length, dtype=torch.bool, device=context.device) if mask is None else mask
    spoken = word.to(context).expand(batch, -1, -1)
    return torch.cat([context, spoken], 1), torch.cat([there, there.new_ones(batch, spoken.shape[1])], 1)


class Inverted(nn.Module):
    """``network``, frozen, which hears the word in every prompt.

    Args:
        network: called as ``network(x, t, context=..., context_mask=..., ...)``.
        start: (n, width) what to begin with, such as the tokens of a word that is near.
    """

    def __init__(self, network: nn.Module, start: Tensor) -> None:
        super().__init__()
        if start.dim() != 2:
            raise InvalidInput("start", tuple(start.shape), "(vectors, width)")
        self.network = network.requires_grad_(False)
        self.word = nn.Parameter(start.clone().float())

    def forward(self, x: Tensor, t: Tensor, context: Tensor, context_mask: Tensor | None = None, **rest: Any) -> Tensor:
        """One evaluation."""
        context, mask = say(context, context_mask, self.word)
        out: Tensor = self.network(x, t, context=context, context_mask=mask, **rest)
        return out


def save_word(network: Inverted, word: str, path: Path) -> None:
    """Write what was learnt."""
    save_file({f"<{word}>": network.word.detach().half().contiguous()}, path)


def load_word(path: Path) -> tuple[str, Tensor]:
    """A word and its vectors.

    Raises:
        ModelError: the file is something else.
    """
    try:
        ((name, vectors),) = load_file(path).items()
    except Exception as error:
        raise ModelError(f"{path.name} is no learnt word: {error}") from None
    if not (name.startswith("<") and name.endswith(">") and vectors.dim() == 2):
        raise ModelError(f"{path.name} is no learnt word: wanted one matrix called <word>, got {name[:40]}")
    return name[1:-1], vectors.float()
