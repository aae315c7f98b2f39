"""Trains a class-conditional pixel U-Net on CIFAR-10; a benchmark of the trainer and the core, nothing that ships.

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (2022), table 1; Lipman et al.,
    Flow Matching (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin.nn import UNet
from perrin.pictures import grid_of, to_pixels
from perrin.training.objective import Objective
from perrin_image.data.cifar import CLASSES, Cifar, open_cifar, prepare_cifar

__all__ = ["CifarTask", "draw", "to_colours"]

DEFAULT = {"times": {"kind": "logit_normal"}}
"""The objective of a recipe that says nothing: the velocity of a flow."""


class Batch(NamedTuple):
    """Pictures (B, 3, 32, 32) in [-1, 1] and labels (B,); 10 stands for any."""

    pictures: Tensor
    label: Tensor


def to_colours(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def draw(
    network: nn.Module,
    objective: Objective,
    labels: Tensor,
    seed: int = 0,
    *,
    sampler: str = "dpmpp_2m",
    steps: int = 20,
    guidance: float = 1.0,
) -> Tensor:
    """Pictures (B, 3, 32, 32) of the classes ``labels`` (B,), in [-1, 1]; picture i has seed + i.

    Args:
        network: a U-Net of `CifarTask`.
        objective: what it was trained for.
        labels: 0 to 9; 10 for any.
        seed: of the first picture.
        sampler, steps: of `perrin.diffusion.solvers`.
        guidance: 1 is the class alone.
    """
    process = d.process.from_config(objective.process)
    denoiser: Any = d.Denoiser(network, process, objective.prediction)
    if guidance != 1:
        denoiser = d.guidance.classifier_free(denoiser, guidance, {"label": torch.tensor([len(CLASSES)])})
    seeds = [seed + number for number in range(len(labels))]
    plan = d.solvers.solver(sampler)(d.grid.shifted(process, steps, shift=1.0))
    made = d.sample(denoiser, plan, shape=(3, 32, 32), seeds=seeds, condition={"label": labels})
    assert isinstance(made, Tensor)
    return made.clamp(-1, 1)


class CifarTask:
    """Options: ``network`` (arguments of `perrin.nn.UNet`), ``objective`` (of `perrin.training.objective.Objective`),
    ``dropout`` (of the class), ``mirror`` (probability), ``sampler`` and ``steps`` (of the pictures that are drawn).
    """

    weights = "unet"
    data: Cifar

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = {"dropout": 0.1, "mirror": 0.5, "sampler": "dpmpp_2m", "steps": 20, **options}
        torch.manual_seed(0)
        self._arguments = {**self.options.get("network", {}), "channels": 3, "classes": len(CLASSES)}
        self.network: nn.Module = UNet(**self._arguments)
        self._folders = dict(folders)
        self.objective = Objective.model_validate(self.options.get("objective", DEFAULT))
        self._loss = self.objective.loss()

    def prepare(self, progress: Progress) -> None:
        """Fetch and unpack the pictures."""
        self.data = open_cifar(prepare_cifar(self._folders["data"] / "image", progress))
        if not len(self.data.labels) or not len(self.data.test_labels):
            raise InvalidInput("pictures", len(self.data.labels), "some to train on and some to test on")

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Pictures, half of them mirrored; a tenth without its class."""
        chosen = generator.integers(len(self.data.labels), size=size)
        pixels = np.stack([self.data.pictures[i] for i in chosen])
        mirrored = generator.random(size) < float(self.options["mirror"])
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        labels = np.where(
            generator.random(size) < float(self.options["dropout"]), len(CLASSES), self.data.labels[chosen]
        )
        return Batch(to_colours(pixels).contiguous(memory_format=torch.channels_last), torch.from_numpy(labels))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says."""
        return self._loss(network, batch.pictures, {"label": batch.label}, generator)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on test pictures; draws eight of each class, a class a row."""
        some = slice(0, 512)
        x, labels = to_colours(self.data.test_pictures[some]), torch.from_numpy(np.array(self.data.test_labels[some]))
        loss = self.loss(network, Batch(x, labels), torch.Generator().manual_seed(0))[0]
        wanted = torch.arange(len(CLASSES)).repeat_interleave(8)
        made = draw(network, self.objective, wanted, sampler=self.options["sampler"], steps=self.options["steps"])
        Image.fromarray(grid_of(to_pixels(made), columns=8)).save(path)
        return {"test_loss": float(loss)}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as fp16, and what the card says of this model."""
        save_file({key: v.half().contiguous() for key, v in network.state_dict().items()}, folder / "unet.safetensors")
        return {
            "architecture": {"unet": {"kind": "unet", **self._arguments}},
            "process": self.objective.process,
            "prediction": self.objective.prediction,
            "conditioners": {"class": list(CLASSES)},
            "defaults": {"steps": self.options["steps"], "sampler": self.options["sampler"]},
            "sizes": [[32, 32]],
            "data": {"pictures": len(self.data.labels), "test": len(self.data.test_labels)},
        }
