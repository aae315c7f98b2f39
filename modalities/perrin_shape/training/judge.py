"""Trains the judge of classes on real shapes, without those whose captions are held out, and without one in forty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.modality import Progress
from perrin_shape.captions import CLASSES
from perrin_shape.cloud import Cloud
from perrin_shape.data.draw import sheet
from perrin_shape.metrics.judge import Judge
from perrin_shape.training.data import Shapes

__all__ = ["JudgeTask"]

POINTS = 768

SETTLING = 24
"""Batches that statistics are taken from."""


class Batch(NamedTuple):
    """Points with normals (B, n, 6) and classes (B,)."""

    points: Tensor
    label: Tensor


class JudgeTask:
    """Options: ``network`` (of `perrin_shape.metrics.judge.Judge`)."""

    weights = "judge"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = dict(options)
        self.shapes = Shapes(data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = Judge(len(CLASSES), **self.options.get("network", {}))

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack the shapes; what is in no class is not judged."""
        self.shapes.prepare(progress)
        named = self.shapes.labels != CLASSES.index("other")
        self.train = self.shapes.train[named[self.shapes.train]]
        kept = np.concatenate([self.shapes.validation, self.shapes.unseen])
        self.held_out = kept[named[kept]]
        counts = np.bincount(self.shapes.labels[self.train], minlength=len(CLASSES))
        weight = 1 / np.sqrt(counts[self.shapes.labels[self.train]])  # rare classes more often than they are
        self.chances = weight / weight.sum()

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Shapes of few points, stretched a little, turned a little about the vertical, a little noisy."""
        chosen = generator.choice(self.train, size, p=self.chances)
        points = self._points(chosen, generator)
        angle = torch.from_numpy(generator.uniform(-0.25, 0.25, size).astype(np.float32))
        turn = torch.zeros(size, 3, 3)
        turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
        turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = angle.sin(), -angle.sin(), 1
        places, normals = points[..., :3] @ turn.mT, points[..., 3:] @ turn.mT
        stretch = torch.from_numpy(generator.uniform(0.85, 1.15, (size, 1, 3)).astype(np.float32))
        mirror = torch.from_numpy(generator.choice([-1.0, 1.0], (size, 1, 1)).astype(np.float32))
        sides = torch.cat([mirror, torch.ones(size, 1, 2)], 2)
        noise = torch.from_numpy(generator.standard_normal(places.shape).astype(np.float32))
        strength = torch.from_numpy(generator.uniform(0, 0.025, (size, 1, 1)).astype(np.float32))
        places = (places * stretch + strength * noise) * sides
        tilt = torch.from_numpy(generator.standard_normal(normals.shape).astype(np.float32))
        normals = F.normalize((normals / stretch + 8 * strength * tilt) * sides, dim=-1)
        return Batch(torch.cat([places, normals], -1), self._labels(chosen))

    def _points(self, chosen: NDArray[np.int64], generator: np.random.Generator) -> Tensor:
        clouds = self.shapes.clouds(chosen, POINTS, generator)
        return torch.cat([clouds.points, clouds.normals], -1)

    def _labels(self, chosen: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.shapes.labels[chosen].astype(np.int64))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy."""
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        said = network(batch.points).float()
        loss = F.cross_entropy(said, batch.label, label_smoothing=0.05)
        return loss, {"right": (said.argmax(1) == batch.label).float().mean()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """How often it is right about shapes that it has not seen; draws some that it is wrong about."""
        self._settle(network)
        generator = np.random.default_rng(0)
        right: list[bool] = []
        wrong: list[Tensor] = []
        for part in np.array_split(self.held_out, max(1, len(self.held_out) // 32)):
            points, label = self._points(part, generator), self._labels(part)
            said = network(points).argmax(1)
            right += (said == label).tolist()
            wrong += list(points[said != label])
        shown = [Cloud(one[:, :3].numpy(), one[:, 3:].numpy()) for one in wrong[:16]]
        if shown:
            sheet(shown, columns=8).save(path)
        return {"right": sum(right) / len(right)}

    @torch.no_grad()
    def _settle(self, network: nn.Module) -> None:
        """Statistics of its own for averaged weights, without which eight in a hundred more are wrong.

        References:
            Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (2018), section 3.3.
        """
        for part in network.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.reset_running_stats()
                part.momentum = None
        network.train()
        generator = np.random.default_rng(0)
        for _ in range(SETTLING):
            network(self.batch(32, generator).points)
        network.eval()

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights."""
        self._settle(network)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "judge.safetensors")
        arguments = {"kind": "judge", "classes": len(CLASSES), **self.options.get("network", {})}
        return {"architecture": {"judge": arguments}, "data": {"classes": list(CLASSES)}}
