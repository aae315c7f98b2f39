"""Features of all pictures of the data, and of what an autoencoder gives back of them; computed once, kept beside them.

A model's pictures have the faults of its autoencoder. What is compared with them has to have these too, where it is not
the faults that are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perrin.errors import ModelError
from perrin.modality import Progress
from perrin.models import ModelCard
from perrin.models.weights import load_network
from perrin.nn import Autoencoder
from perrin.pictures import to_tensor
from perrin_image.data import Pack
from perrin_image.metrics.features import NAME, Features

__all__ = ["autoencoder", "features_of", "small", "through", "worn_features_of"]

PART = 512


def features_of(pack: Pack, folder: Path, progress: Progress) -> Tensor:
    """(N, 320) of all pictures of ``pack``, whose features are kept in ``folder``."""
    network = Features()
    return _computed(pack, folder, "data", lambda x: (network.of(x),), progress)[0]


def worn_features_of(pack: Pack, folder: Path, card: ModelCard, progress: Progress) -> tuple[Tensor, Tensor]:
    """Features (N, 320) and small pixels (N, 768) of all pictures as the autoencoder of ``card`` gives them back."""
    network, codec = Features(), autoencoder(card)

    def compute(x: Tensor) -> tuple[Tensor, ...]:
        y = through(codec, x)
        return network.of(y), small(y)

    features, pixels = _computed(pack, folder, card.files["autoencoder.safetensors"], compute, progress)
    return features, pixels


def through(codec: Autoencoder, x: Tensor) -> Tensor:
    """Pictures (B, 4, 64, 64) as an autoencoder gives them back."""
    with torch.inference_mode():
        return torch.cat([codec.decode(codec.encode(part)).clamp(-1, 1) for part in x.split(64)])


def small(pictures: Tensor, side: int = 16) -> Tensor:
    """Colours of (B, 3 or more, H, W) as means over blocks: (B, 3 side^2)."""
    return F.adaptive_avg_pool2d(pictures[:, :3].float(), side).flatten(1)


def autoencoder(card: ModelCard) -> Autoencoder:
    """Of a model. Raises ModelError where it has none."""
    network = load_network(card, "autoencoder")
    if not isinstance(network, Autoencoder):
        raise ModelError(f"model {card.name}: its autoencoder is of another kind: {type(network).__name__}")
    return network


def _computed(
    pack: Pack, folder: Path, of: str, compute: Callable[[Tensor], tuple[Tensor, ...]], progress: Progress
) -> tuple[Tensor, ...]:
    """What ``compute`` makes of parts of the pictures, put together."""
    ids = [record.id for record in pack.records]
    key = hashlib.sha256(f"{NAME} {of} {ids}".encode()).hexdigest()[:16]
    path = folder / f"features-{key}.npz"
    if not path.exists():
        parts = []
        for begin in range(0, len(ids), PART):
            parts.append(compute(to_tensor(np.array(pack.pictures[begin : begin + PART]))))
            progress(begin, len(ids), "features of the data")
        part = path.with_suffix(".part.npz")
        np.savez(part, *(torch.cat(each).numpy() for each in zip(*parts, strict=True)))
        part.replace(path)
    with np.load(path) as held:
        return tuple(torch.from_numpy(held[name]) for name in sorted(held.files))
