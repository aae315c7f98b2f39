r"""Trains the codec: points to latents, and latents to surfels.

The decoder is told which cells have surface when its surfels are measured, so that these are learnt beside where they
are and not after it:

.. math::
    L = H(\text{surface}) + \lambda\, H(\text{surfels there}) + \overline{|v - \hat v|_w} + \beta\, \overline{z^2}

The encoder sees 256 to 4,096 points, mostly more than 1,400; of a tenth of the shapes only those on one side of a
plane, and then only cells that have a point count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.modality import Progress
from perrin_shape.cloud import Cloud
from perrin_shape.data.draw import sheet
from perrin_shape.network import CELLS, PARTS, ShapeCodec, located, surfels_from
from perrin_shape.surfels import VALUES, drawn
from perrin_shape.training.data import Clouds, Shapes, cut

__all__ = ["CodecTask", "chamfer"]

WEIGHTS = (1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 1.0, 1.0, 1.0)
"""Of the errors of a surfel's numbers."""


class Batch(NamedTuple):
    """Clouds, and of the cells of theirs that have surface: cloud * 16^3 + cell (R,), which surfels are there (R, 48),
    their numbers (R, 48, 11); and which cells count (B, 16^3)."""

    clouds: Clouds
    rows: Tensor
    there: Tensor
    values: Tensor
    counts: Tensor


def chamfer(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The sum of the mean squared distances from each to the nearest of the other."""
    from scipy.spatial import cKDTree

    return float((cKDTree(a).query(b)[0] ** 2).mean() + (cKDTree(b).query(a)[0] ** 2).mean())


class CodecTask:
    """Options: ``network`` (of `ShapeCodec`), ``present`` (lambda), ``small`` (beta)."""

    weights = "codec"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = dict(options)
        self.shapes = Shapes(data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = ShapeCodec(**self.options.get("network", {}))

    def prepare(self, progress: Progress) -> None:
        """Fetch, sample and pack the shapes."""
        self.shapes.prepare(progress)

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Clouds with their surfels."""
        return self._batch_of(self.shapes.drawn(size, generator), generator, 0.1)

    def _batch_of(self, chosen: NDArray[np.int64], generator: np.random.Generator, cuts: float) -> Batch:
        count = int(2 ** (generator.uniform(8, 10.5) if generator.random() < 0.1 else generator.uniform(10.5, 12)))
        clouds = self.shapes.clouds(chosen, count, generator)
        counts = np.ones((len(chosen), CELLS**3), bool)
        for number in np.flatnonzero(generator.random(len(chosen)) < cuts).tolist():
            points = clouds.points[number].numpy()
            gone = ~cut(points, generator)
            clouds.normals[number][torch.from_numpy(gone)] = 0
            at = np.clip(np.floor((points + 1) * (CELLS / 2)), 0, CELLS - 1).astype(int)
            flat = (at[:, 0] * CELLS + at[:, 1]) * CELLS + at[:, 2]
            counts[number] = np.bincount(flat[gone], minlength=CELLS**3) == 0
        keys, part, values = [], [], []
        for number, i in enumerate(chosen.tolist()):
            cell, which = located(np.asarray(self.shapes.pack.arrays["index"][i], np.int64))
            kept = counts[number][cell]
            keys.append(number * CELLS**3 + cell[kept])
            part.append(which[kept])
            values.append(np.asarray(self.shapes.pack.arrays["values"][i], np.float32)[kept])
        rows, surfel = np.unique(np.concatenate(keys), return_inverse=True)
        there = np.zeros((len(rows), PARTS), np.float32)
        numbers = np.zeros((len(rows), PARTS, VALUES), np.float32)
        joined = np.concatenate(part)
        there[surfel, joined], numbers[surfel, joined] = 1, np.concatenate(values)
        return Batch(clouds, *map(torch.from_numpy, (rows, there, numbers, counts)))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the module says."""
        decoded, z = network(*batch.clouds)
        target = torch.zeros(decoded.surface.numel(), device=z.device)
        target[batch.rows] = 1.0
        counts = batch.counts.flatten().to(z)
        surface = F.binary_cross_entropy_with_logits(decoded.surface.flatten(), target, reduction="none")
        surface = (surface * counts).sum() / target.sum().clamp(min=1)
        codec = cast(ShapeCodec, network if isinstance(network, ShapeCodec) else network.module)
        logits, said = codec.surfels(decoded.features.flatten(0, 1)[batch.rows])
        present = F.binary_cross_entropy_with_logits(logits, batch.there, reduction="none").sum(-1).mean()
        error = (said[batch.there > 0] - batch.values[batch.there > 0]).abs() * said.new_tensor(WEIGHTS)
        value = error.mean()
        total = surface + float(self.options.get("present", 0.15)) * present + value
        total = total + float(self.options.get("small", 1e-3)) * z.square().mean()
        return total, {"surface": surface.detach(), "present": present.detach(), "value": value.detach()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """Chamfer distances, times 10^4, of shapes to what comes back, beside those of halves of each; draws some."""
        codec = cast(ShapeCodec, network)
        _standardise(codec, self.shapes)
        chosen = self.shapes.validation[:64]
        whole = self.shapes.clouds(chosen, 4096, np.random.default_rng(0))
        order = torch.randperm(4096, generator=torch.Generator().manual_seed(0))
        first, second = order[:2048], order[2048:]
        made = surfels_from(codec, codec.encode(*(part[:, first] for part in whole)))
        back = [drawn(one, 2048) if len(one.index) else Cloud(np.zeros((1, 3), np.float32)) for one in made]
        real = whole.points.numpy()
        apart = [chamfer(cloud.points, one[second]) for cloud, one in zip(back, real, strict=True)]
        floor = [chamfer(one[first], one[second]) for one in real]
        shown = [_cloud(whole, k) for k in range(min(12, len(chosen)))] + [
            drawn(one, 4096) for one in made[:12] if len(one.index)
        ]
        sheet(shown, 12).save(path)
        return {
            "chamfer": 1e4 * float(np.mean(apart)),
            "median_chamfer": 1e4 * float(np.median(apart)),
            "floor": 1e4 * float(np.mean(floor)),
        }

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as bf16, with the spread of the latents of the shapes."""
        _standardise(cast(ShapeCodec, network), self.shapes)
        state = {key: value.bfloat16().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "codec.safetensors")
        return {"architecture": {"codec": {"kind": "codec", **self.options.get("network", {})}}}


def _cloud(clouds: Clouds, k: int) -> Cloud:
    colours = ((clouds.colours[k].numpy() + 1) * 127.5).round().astype(np.uint8)
    return Cloud(clouds.points[k].numpy(), clouds.normals[k].numpy(), colours)


@torch.no_grad()
def _standardise(codec: ShapeCodec, shapes: Shapes) -> None:
    """Measure the latents of 512 shapes."""
    codec.mean.zero_()
    codec.deviation.fill_(1.0)
    generator = np.random.default_rng(0)
    z = torch.cat([codec.encode(*shapes.clouds(shapes.drawn(32, generator), 2048, generator)) for _ in range(16)])
    codec.mean.copy_(z.mean((0, 2, 3, 4)))
    codec.deviation.copy_(z.std((0, 2, 3, 4)))
