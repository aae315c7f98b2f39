"""A shape that a request begins with: where it lies in the model's ball, what the codec sees, what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from perrin.errors import InvalidInput
from perrin.inputs import InputFile
from perrin_shape.cloud import Cloud
from perrin_shape.data.triangles import normalised
from perrin_shape.normals import outward_normals
from perrin_shape.reading import read

__all__ = ["Given", "given_of", "tensors"]

Floats = NDArray[np.float32]

SEEN = 8192
"""Most points that the codec is shown."""

GREY = 170
"""Colour of a shape that has none."""


@dataclass(frozen=True)
class Given:
    """A shape to begin with.

    Attributes:
        own: the shape as it was given.
        middle: (3,) what lies in the middle of the model's ball.
        size: radius of the ball.
        inside: the shape in the ball, with normals and colours.
    """

    own: Cloud
    middle: Floats
    size: float
    inside: Cloud

    @property
    def spacing(self) -> float:
        """The median distance of a point to its fourth neighbour."""
        near = cKDTree(self.inside.points).query(self.inside.points, k=min(5, len(self.own)))[0][:, -1]
        return float(np.median(near))

    def back(self, cloud: Cloud) -> Cloud:
        """A cloud of the ball, where the given shape is."""
        return replace(cloud, points=(cloud.points * np.float32(self.size) + self.middle).astype(np.float32))

    def keeping(self, made: Cloud, count: int) -> Cloud:
        """The given points, each as it was, and as many of ``made``, which lies in the ball, as are wanted."""
        more = max(0, count - len(self.own))
        chosen = np.linspace(0, len(made) - 1, more).round().astype(int) if more else np.zeros(0, int)
        parts = self.back(made)
        normals = self.own.normals if self.own.normals is not None else self.inside.normals
        colours = self.own.colours if self.own.colours is not None else self.inside.colours
        assert normals is not None
        assert colours is not None
        assert parts.normals is not None
        assert parts.colours is not None
        return Cloud(
            np.concatenate([self.own.points, parts.points[chosen]]),
            np.concatenate([normals, parts.normals[chosen]]),
            np.concatenate([colours, parts.colours[chosen]]),
        )

    def beyond(self, made: Cloud) -> Cloud:
        """What of ``made`` lies where nothing is given."""
        apart = cKDTree(self.inside.points).query(made.points)[0]
        return _some(made, apart > max(2 * self.spacing, 0.04))

    def onto(self, made: Cloud) -> Cloud:
        """What of ``made`` lies near the given shape, moved onto the planes of the nearest given points."""
        apart, near = cKDTree(self.inside.points).query(made.points)
        normals, colours = self.inside.normals, self.inside.colours
        assert normals is not None
        assert colours is not None
        across = ((made.points - self.inside.points[near]) * normals[near]).sum(1, keepdims=True)
        moved = Cloud((made.points - across * normals[near]).astype(np.float32), normals[near], colours[near])
        return _some(moved, (apart < max(2.5 * self.spacing, 0.02)) & (np.abs(across[:, 0]) < 0.06))


def _some(cloud: Cloud, which: NDArray[np.bool_]) -> Cloud:
    normals = None if cloud.normals is None else cloud.normals[which]
    return Cloud(cloud.points[which], normals, None if cloud.colours is None else cloud.colours[which])


def given_of(inputs: Mapping[str, InputFile], points: int) -> Given | None:
    """The shape among ``inputs``, as ``points`` if it is a mesh.

    One that lies within the unit ball stays where it is, another is centred and scaled.

    Raises:
        InvalidInput: it cannot be read, or is no shape.
    """
    file = inputs.get("cloud")
    if file is None:
        return None
    own = read(file.data, "cloud", "cloud", points, centre=False)
    try:
        middle, size = normalised(own.points)
        if float(np.linalg.norm(own.points, axis=1).max()) <= 1 + 1e-3:
            middle, size = np.zeros(3, np.float32), 1.0
        inside = ((own.points - middle) / size).astype(np.float32)
        normals = own.normals if own.normals is not None else outward_normals(inside)
    except ValueError as error:
        raise InvalidInput("cloud", f"{len(own)} points", f"a shape of four points or more: {error}") from None
    colours = own.colours if own.colours is not None else np.full(inside.shape, GREY, np.uint8)
    return Given(own, middle, size, Cloud(inside, normals, colours))


def tensors(cloud: Cloud, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Points, normals and colours (1, n, 3) for the codec, at most `SEEN` of them.

    Args:
        cloud: with normals and colours.
        device: where to.
    """
    assert cloud.normals is not None
    assert cloud.colours is not None
    chosen = np.random.default_rng(0).permutation(len(cloud))[:SEEN]
    colours = cloud.colours[chosen].astype(np.float32) / 127.5 - 1
    found = (cloud.points[chosen], cloud.normals[chosen], colours)
    return tuple(torch.from_numpy(np.ascontiguousarray(part))[None].to(device) for part in found)  # type: ignore[return-value]
