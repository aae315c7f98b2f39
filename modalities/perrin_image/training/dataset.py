"""The data pack as tensors, split into training and held-out pictures.

A picture is held out by the hash of its id (2%), together with its recoloured copies. Recoloured copies that would show
one of the test prompts' recombinations ("red rocket") are left out of training altogether.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin_image.data import Record, open_pack, prepare

__all__ = ["Pictures", "load_pictures", "prompts", "to_tensor"]


@dataclass(frozen=True)
class Pictures:
    """Captioned pictures.

    Attributes:
        pixels: uint8 [N, 64, 64, 4], mapped from disk.
        records: N.
        train: indices to train on.
        held_out: indices never trained on.
        weights: sampling probability of each of ``train``.
    """

    pixels: npt.NDArray[np.uint8]
    records: tuple[Record, ...]
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


def prompts(section: str | None = None) -> list[str]:
    """The committed test prompts, all 64 or those of one section."""
    text = (files("perrin_image") / "recipes" / "prompts-64.yaml").read_text()
    values = yaml.safe_load(text)
    sections = [section] if section else ["as_captioned", "reworded", "recombined"]
    return [prompt for name in sections for prompt in values[name]]


def load_pictures(folder: Path, progress: Progress, emphasis: Mapping[str, float] | None = None) -> Pictures:
    """Prepare the pack under ``folder`` if need be, and split it.

    Args:
        folder: cache of the data.
        progress: told how it goes.
        emphasis: factors on the sampling weight of whole styles, and under ``people`` of people.
    """
    emphasis = emphasis or {}
    pack = open_pack(prepare(folder, progress))
    held = np.array([crc32(r.id.split("@")[0].encode()) % 50 == 0 for r in pack.records])
    forbidden = [p.split(" ", 1) for p in prompts("recombined")]
    barred = np.array([r.recoloured and _shows(r, forbidden) for r in pack.records])
    train = np.flatnonzero(~held & ~barred)
    if not held.any() or not len(train):
        raise InvalidInput("pack", f"{len(held)} pictures", "more: some to train on, and some (2%) to hold out")
    weights = np.array([_weight(pack.records[i], emphasis) for i in train], np.float64)
    return Pictures(pack.pictures, pack.records, train, np.flatnonzero(held), weights / weights.sum())


PEOPLE = frozenset(
    [
        "man",
        "woman",
        "person",
        "people",
        "men",
        "women",
        "boy",
        "girl",
        "child",
        "adult",
        "couple",
        "family",
        "hand",
        "hands",
        "finger",
    ]
)


def _weight(record: Record, emphasis: Mapping[str, float]) -> float:
    people = emphasis.get("people", 1.0) if PEOPLE & set(record.name.replace("-", " ").split()) else 1.0
    return record.weight * emphasis.get(record.style, 1.0) * people


def _shows(record: Record, forbidden: Sequence[Sequence[str]]) -> bool:
    words = {word for caption in record.captions for word in caption.split()}
    return any(record.colour == colour and set(noun.split()) <= words for colour, noun in forbidden)


def to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Straight-alpha uint8 (B, H, W, 4) as float32 (B, 4, H, W) in [-1, 1]: colour over white, and alpha."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    colour, alpha = x[:, :3], x[:, 3:]
    return torch.cat([colour * alpha + (1 - alpha), alpha], dim=1) * 2 - 1
