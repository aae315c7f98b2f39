r"""Does a picture show what was asked for? The nearest of 1,000 captions, by a judge trained on the data alone.

A picture's features go into the space of MiniLM's sentences; of a sentence s, itself the mean of its tokens,

.. math:: \operatorname{score}(x, s) = \frac{f(x) \cdot W s}{|f(x)|\,|W s|}

with two layers f on the features of `perrin_image.metrics.features`, and a matrix W. They are trained by ``perrin train
image/captions`` on pictures of the data, never on generated ones, and lie under ``PERRIN_HOME``; they do not ship.

Held out from the judge is what `unseen` says, four pictures in fifty; the first of these four are what no model of the
project is trained on (`perrin_image.training.dataset.held_out`). Its 1,000 captions are the first captions of such
pictures, each once.

References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021), section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import ModelError
from perrin.models import ModelCard
from perrin.nn.text import text_encoder
from perrin_image.data import Record

__all__ = ["CaptionNetwork", "Ranks", "bare", "candidates", "load_judge", "ranks", "sentences", "unseen"]

NUMBER = 1000
"""How many captions a picture is compared with."""


class CaptionNetwork(nn.Module):
    """Features of pictures, and sentences, in one space.

    Args:
        features: channels of a picture's features.
        hidden: channels between the two layers.
        dropout: probability between them.
        sentence: channels of a sentence.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int = 320, hidden: int = 1024, dropout: float = 0.3, sentence: int = 384) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, sentence)
        )
        self.text = nn.Linear(sentence, sentence, bias=False)
        nn.init.eye_(self.text.weight)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, channels) to (B, sentence) of unit length."""
        return F.normalize(self.layers((x - self.mean) / self.deviation), dim=-1)

    def said(self, sentences: Tensor) -> Tensor:
        """(N, sentence) to as many of unit length."""
        return F.normalize(self.text(sentences), dim=-1)


class Ranks(NamedTuple):
    """Shares of pictures whose own caption is the nearest, and among the nearest five."""

    one: float
    five: float


def unseen(record: Record) -> bool:
    """Whether the judge was not trained on this picture: four in fifty, and their recoloured copies."""
    return _hash(record) % 50 < 4


def candidates(records: Sequence[Record], number: int = NUMBER) -> list[int]:
    """Indices of unseen pictures whose first captions differ, in a fixed order: what no model is trained on first."""
    order = sorted((i for i, r in enumerate(records) if unseen(r)), key=lambda i: (_first(records[i]), i))
    chosen: dict[str, int] = {}
    for index in order:
        chosen.setdefault(bare(records[index].captions[0]), index)
    return list(chosen.values())[:number]


def bare(caption: str) -> str:
    """A caption without what says nothing of the picture."""
    words = caption.split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in {"a", "an", "the"} else words)


def sentences(texts: Sequence[str]) -> Tensor:
    """(N, 384): each the mean of its tokens' states."""
    made = []
    for begin in range(0, len(texts), 256):
        tokens, mask = text_encoder()(texts[begin : begin + 256])
        made.append(tokens.sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(made)


@torch.inference_mode()
def ranks(network: CaptionNetwork, features: Tensor, said: Tensor, own: Sequence[int] | None = None) -> Ranks:
    """How often the own caption comes first, and among the first five.

    Args:
        network: the judge.
        features: (B, channels) of pictures.
        said: (N, 384) all captions' sentences.
        own: of each picture, its caption's number; by default its own number.
    """
    wanted = torch.arange(len(features)) if own is None else torch.tensor(own)
    scores = network(features) @ network.said(said).T
    better = (scores > scores.gather(1, wanted[:, None])).sum(1)
    return Ranks(float((better < 1).float().mean()), float((better < 5).float().mean()))


def load_judge(card: ModelCard) -> CaptionNetwork:
    """The network of a model that ``perrin train image/captions`` made.

    Raises:
        ModelError: the card is another kind of model's, or its file is broken.
    """
    arguments = card.architecture.get("judge")
    if arguments is None:
        got = ", ".join(card.architecture) or "nothing"
        raise ModelError(f"model {card.name}: wanted a judge of captions (perrin train image/captions), got {got}")
    try:
        network = CaptionNetwork(**arguments)
        network.load_state_dict({key: value.float() for key, value in load(card.read("judge.safetensors")).items()})
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ModelError(f"model {card.name}: judge.safetensors does not fit its card: {error}") from None
    return network.eval().requires_grad_(False)


def _hash(record: Record) -> int:
    return crc32(record.id.split("@")[0].encode())


def _first(record: Record) -> tuple[int, int]:
    return _hash(record) % 50, crc32(record.id.encode())
