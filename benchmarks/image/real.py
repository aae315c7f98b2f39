"""The real pictures that generated ones are compared with, and their features; shared by the benchmarks beside it.

Prepared once under ``PERRIN_HOME/data/image``: the pack (fetched where it is not there), and the features of all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from perrin.models.card import ModelCard, read_card
from perrin.settings import Settings
from perrin_image.data import Pack
from perrin_image.metrics.captions import CaptionNetwork, candidates, load_judge
from perrin_image.metrics.known import features_of, worn_features_of
from perrin_image.training.dataset import Pictures, held_out, load_pictures, to_tensor

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Real:
    """Pictures of the data.

    Attributes:
        pictures: all of them, and which are trained on.
        features: (N, 320) of all of them.
        asked: the 1,000 whose captions are asked for.
        others: as many that are neither among these nor held out, one by one of the same style as these, and a
            recoloured copy where that is one.
    """

    pictures: Pictures
    features: Tensor
    asked: list[int]
    others: list[int]

    def tensor(self, chosen: list[int] | Numbers) -> Tensor:
        """(n, 4, 64, 64)."""
        return to_tensor(np.stack([self.pictures.pixels[i] for i in chosen]))

    def fresh(self, index: int) -> bool:
        """Whether no model of the project is trained on this picture."""
        return held_out(self.pictures.records[index])


def real_pictures() -> Real:
    """Everything that `Real` holds."""
    pictures = load_pictures(folder(), silent)
    asked = candidates(pictures.records)
    features = features_of(Pack(pictures.pixels, pictures.records), folder(), silent)
    return Real(pictures, features, asked, _others(pictures, asked))


def worn(pictures: Pictures, card: ModelCard) -> tuple[Tensor, Tensor]:
    """Features and small pixels of all pictures as the autoencoder of ``card`` gives them back."""
    return worn_features_of(Pack(pictures.pixels, pictures.records), folder(), card, silent)


def folder() -> Path:
    """Of the data."""
    return Settings().home_path / "data" / "image"


def silent(done: int, total: int, label: str) -> None:
    """Show nothing."""


def _others(pictures: Pictures, asked: list[int]) -> list[int]:
    taken, rng = set(asked), np.random.default_rng(0)
    pools: dict[tuple[str, bool], list[int]] = {}
    for index in rng.permutation(len(pictures.records)):
        record = pictures.records[index]
        if index not in taken and not held_out(record):
            pools.setdefault((record.style, record.recoloured), []).append(int(index))
    return [pools[pictures.records[i].style, pictures.records[i].recoloured].pop() for i in asked]


def judge() -> tuple[CaptionNetwork | None, str]:
    """The judge of captions that ``perrin train image/captions`` left under PERRIN_HOME, and what to say of it."""
    made = Settings().home_path / "training" / "image-captions" / "model"
    if not (made / "card.yaml").exists():
        return None, f"none in {made}, so captions are not judged; `perrin train image/captions` makes one"
    card = read_card(made)
    return load_judge(card), f"{card.name} {card.sha256[:12]}; {card.metrics.get('judge')}"
