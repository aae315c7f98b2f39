"""What the tasks that train shape models share: the pack, what is trained on, and clouds drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perrin.modality import Progress
from perrin.training.data.pack import Pack
from perrin_shape.captions import CLASSES, class_of
from perrin_shape.data.recipe import held_out, load_shapes

__all__ = ["Clouds", "Shapes", "cut", "mirrored"]

VALIDATION = 40
"""One of so many shapes is kept to measure on, beside those whose captions are held out."""


class Clouds(NamedTuple):
    """Points (B, n, 3), normals (B, n, 3) and colours (B, n, 3) from -1 to 1; a point whose normal is zero is none."""

    points: Tensor
    normals: Tensor
    colours: Tensor


def cut(points: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which of ``points`` (n, 3) lie on one side of a random plane, or outside a random slab: 20% to 80% of them."""
    direction = generator.normal(size=3)
    if generator.random() < 0.7:
        direction = np.eye(3)[generator.integers(3)] * generator.choice([-1, 1])
    along = points @ (direction / np.linalg.norm(direction))
    share = generator.uniform(0.2, 0.8)
    if generator.random() < 0.75:
        return np.asarray(along <= np.quantile(along, share))
    low = generator.uniform(0, share)
    return np.asarray((along < np.quantile(along, low)) | (along > np.quantile(along, min(1.0, low + 1 - share))))


def mirrored(clouds: Clouds, which: Tensor) -> Clouds:
    """``which`` (B,) of them with left and right exchanged."""
    sign = torch.ones(len(which), 1, 3)
    sign[which, :, 0] = -1
    return Clouds(clouds.points * sign, clouds.normals * sign, clouds.colours)


class Shapes:
    """The pack and its parts. Option of the recipe's ``data``: ``furniture``, its share of a batch."""

    pack: Pack

    def __init__(self, data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self._data, self._folders = dict(data), dict(folders)

    def prepare(self, progress: Progress) -> None:
        """Fetch, sample and pack; choose what is trained on and how often."""
        self.pack = load_shapes(self._folders["data"] / "shape", progress)
        held = held_out(self.pack)
        every = np.arange(len(self.pack))
        self.validation = every[~held & (every % VALIDATION == 7)]
        self.unseen = every[held]
        self.train = every[~held & (every % VALIDATION != 7)]
        self.labels = np.array([CLASSES.index(class_of(record.captions[0])) for record in self.pack.records])
        self.chances = self._chances()

    def _chances(self) -> NDArray[np.float64]:
        """Of ``train``: furniture its share; many that differ in a printed pattern alone count like a few."""
        captions = [self.pack.records[i].captions[1] for i in self.train]
        alike = {caption: captions.count(caption) for caption in set(captions)}
        source = np.asarray(self.pack.arrays["source"])[self.train]
        weight = np.array([alike[caption] ** -0.5 for caption in captions])
        weight[source == 1] = 1.0
        share = float(self._data.get("furniture", 0.4))
        for number, part in ((1, share), (0, 1 - share)):
            weight[source == number] *= part / weight[source == number].sum()
        return np.asarray(weight / weight.sum())

    def drawn(self, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """``size`` shapes to train on."""
        return generator.choice(self.train, size, p=self.chances)

    def clouds(self, chosen: NDArray[np.int64], count: int, generator: np.random.Generator) -> Clouds:
        """``count`` points of each."""
        arrays = self.pack.arrays
        which = [np.sort(generator.choice(arrays["points"].shape[1], count, replace=False)) for _ in chosen]
        points, normals, colours = (
            np.stack([arrays[name][i][w] for i, w in zip(chosen, which, strict=True)]).astype(np.float32)
            for name in ("points", "normals", "colours")
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        return Clouds(torch.from_numpy(points), torch.from_numpy(normals), torch.from_numpy(colours / 127.5 - 1))
