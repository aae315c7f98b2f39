"""Trains the diffusion model: a rectified flow over the latents of shapes, told words, class, picture, part.

The latents are those of the codec that the recipe's first stage made. Left and right are exchanged in half of a batch,
in its pictures and parts too. Whatever the network may be told is sometimes left out, alone and all at once, which is
what guidance needs.

References:
    Li and He, Back to Basics: Let Denoising Generative Models Denoise (2025), for predicting what is clean; Esser et
    al., Scaling Rectified Flow Transformers (2024), for times; Ho and Salimans, Classifier-Free
    Diffusion Guidance (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.modality import Progress
from perrin.nn.pictures import PictureNetwork
from perrin.training.objective import Objective, drop
from perrin.training.watch import diversity
from perrin_shape.captions import CLASSES
from perrin_shape.cloud import Cloud
from perrin_shape.conditions import NO_CLASS, Told, encode, padded, part_of, picture_tokens
from perrin_shape.data.draw import picture, sheet
from perrin_shape.data.fetch import ATTRIBUTIONS
from perrin_shape.network import ShapeCodec, ShapeTransformer, surfels_from
from perrin_shape.surfels import drawn, levelled
from perrin_shape.training.data import Clouds, Shapes, cut, mirrored

__all__ = ["ShapeTask"]

DEFAULT = {
    "prediction": "x0",
    "weight": "edm",
    "weight_options": {"sigma_data": 1.0},
    "times": {"kind": "logit_normal", "mean": 2.0, "deviation": 1.3},
}
"""Late times: what a shape is of is in doubt only where nearly all is noise."""

SHIFT = 6.0
"""Of the sampler's times, for the same reason."""

VIEWS = 2
"""Pictures that are made of a shape, and so many of its mirror image."""
POINTS = 2048

TESTS = (
    "chair", "armchair", "table", "lamp", "sofa", "bed", "plant", "brick 2 x 4", "plate 2 x 4", "wheel",
    "gear 24 tooth", "technic beam 5", "slope brick 45 2 x 2", "bottle", "cabinet", "brick 1 x 4 x 2", "oak chair",
    "wooden table",
)  # fmt: skip
"""What pictures of a run show; the last three captions are held out."""


class ShapeTask:
    """Options: ``network`` (of `ShapeTransformer`), ``objective`` (of `perrin.training.objective.Objective`);
    ``text_dropout``, ``label_dropout``, ``all_dropout``; ``picture_share``, ``part_share`` of a batch that is told one.
    """

    weights = "transformer"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._folders = dict(options), dict(folders)
        self.shapes = Shapes(data, folders)
        torch.manual_seed(0)
        self.network: nn.Module = ShapeTransformer(**self._arguments)
        self.objective = Objective.model_validate(self.options.get("objective", DEFAULT))
        self._loss = self.objective.loss()

    @property
    def _arguments(self) -> dict[str, Any]:
        return {"channels": 11, "classes": NO_CLASS, **self.options["network"]}

    def prepare(self, progress: Progress) -> None:
        """Pack the shapes; encode clouds, parts, pictures and captions, once."""
        self.shapes.prepare(progress)
        state = {k: v.float() for k, v in load_file(self._folders["model"] / "codec.safetensors").items()}
        self.codec = ShapeCodec(**self.options.get("codec", {}))
        self.codec.load_state_dict(state)
        self.codec.eval().requires_grad_(False)
        self._latents, self._parts = _kept(
            self._folders["out"] / "encoded.safetensors", lambda: self._encoded(progress)
        )
        (self._pictures,) = _kept(
            self._folders["data"] / "shape" / "pictures.safetensors", lambda: self._seen(progress)
        )
        captions = sorted({caption for record in self.shapes.pack.records for caption in record.captions}, key=len)
        self._row = {caption: row for row, caption in enumerate(captions)}
        progress(0, 1, "encoding captions")
        with torch.autocast("cpu", torch.bfloat16):
            parts = [encode(captions[i : i + 256]) for i in range(0, len(captions), 256)]
        text = padded([*parts, encode([""])])
        self._tokens, self._mask = text.tokens.half(), text.mask

    @torch.no_grad()
    def _encoded(self, progress: Progress) -> tuple[Tensor, ...]:
        """Half-precision latents (N, 2, C, 8, 8, 8) and parts (N, 2, C + 1, 8, 8, 8); the second is mirrored."""
        latents, parts = [], []
        for chosen, generator in self._each(progress, "encoding shapes"):
            for side in (False, True):
                clouds = mirrored(self.shapes.clouds(chosen, POINTS, generator), torch.full((len(chosen),), side))
                latents.append(self._latents_of(clouds))
                for points, normals in zip(clouds.points, clouds.normals, strict=True):
                    normals[torch.from_numpy(~cut(points.numpy(), generator))] = 0
                parts.append(part_of(self._latents_of(clouds), clouds.points, clouds.normals))
        return tuple(_paired(part) for part in (latents, parts))

    def _latents_of(self, clouds: Clouds) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.codec.encode(*clouds).half()

    def _seen(self, progress: Progress) -> tuple[Tensor, ...]:
        """Half-precision features (N, 2, VIEWS, 16, 320) of pictures; the second is of the mirror image."""
        seer, found = PictureNetwork(), []
        for chosen, generator in self._each(progress, "drawing shapes"):
            for side in (False, True):
                clouds = mirrored(self.shapes.clouds(chosen, 4096, generator), torch.full((len(chosen),), side))
                views = [
                    picture(_cloud(clouds, k), generator.uniform(-90, 90), generator.uniform(5, 40))
                    for k in range(len(chosen))
                    for _ in range(VIEWS)
                ]
                with torch.autocast("cpu", torch.bfloat16):
                    found.append(picture_tokens(np.stack(views), seer).half().unflatten(0, (-1, VIEWS)))
        return (_paired(found),)

    def _each(self, progress: Progress, what: str) -> Iterator[tuple[NDArray[np.int64], np.random.Generator]]:
        for start in range(0, count := len(self.shapes.pack), 32):
            progress(start, count, what)
            yield np.arange(start, min(start + 32, count)), np.random.default_rng([3, start])

    def batch(self, size: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """Shapes, of which some or all of what could be told is not."""
        return self._batch_of(self.shapes.drawn(size, generator), generator)

    def _batch_of(self, chosen: NDArray[np.int64], generator: np.random.Generator) -> dict[str, Tensor]:
        o, size = self.options, len(chosen)
        rates = {
            "text": o.get("text_dropout", 0.1),
            "label": o.get("label_dropout", 0.2),
            "all": o.get("all_dropout", 0.1),
        }
        without = {name: torch.from_numpy(gone) for name, gone in drop(size, rates, generator).items()}
        side, view = generator.integers(2, size=size), generator.integers(VIEWS, size=size)
        rows = []
        for index in chosen:
            captions = self.shapes.pack.records[index].captions
            rows.append(self._row[captions[min(len(captions) - 1, int(generator.choice(3, p=(0.55, 0.2, 0.25))))]])
        tokens, mask = self._tokens[rows].float(), self._mask[rows].clone()
        tokens[without["text"]], mask[without["text"]] = self._tokens[-1].float(), self._mask[-1]
        longest = int(mask[:, :-1].any(0).sum())
        tokens = torch.cat([tokens[:, :longest], tokens[:, -1:]], 1)
        mask = torch.cat([mask[:, :longest], mask[:, -1:]], 1)
        label = torch.from_numpy(self.shapes.labels[chosen]).long()
        label[(label == CLASSES.index("other")) | without["label"]] = NO_CLASS
        nothing = without["text"] & without["label"]
        looks = torch.from_numpy(generator.random(size) < o.get("picture_share", 0.3)) & ~nothing
        given = torch.from_numpy(generator.random(size) < o.get("part_share", 0.2)) & ~nothing
        alone = looks & torch.from_numpy(generator.random(size) < 0.5)
        silent = [*range(longest), -1]
        tokens[alone], mask[alone] = self._tokens[-1, silent].float(), self._mask[-1, silent]
        label[alone] = NO_CLASS
        return {
            "latents": self._latents[chosen, side].float(),
            "context": tokens,
            "context_mask": mask,
            "label": label,
            "picture": self._pictures[chosen, side, view].float() * looks[:, None, None],
            "part": self._parts[chosen, side].float() * given[:, None, None, None, None],
        }

    def loss(
        self, network: nn.Module, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says."""
        condition = {name: part for name, part in batch.items() if name != "latents"}
        return self._loss(network, batch["latents"], condition, generator)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on validation shapes and on those of held-out captions; draws what some captions give."""
        losses = {}
        for name, chosen in (("held_out_loss", self.shapes.validation), ("unseen_loss", self.shapes.unseen)):
            batch = self._batch_of(chosen[:128], np.random.default_rng(0))
            losses[name] = float(self.loss(network, batch, torch.Generator().manual_seed(0))[0])
        process = d.process.from_config(self.objective.process)
        denoiser = d.Denoiser(network, process, self.objective.prediction)
        told, null = Told.of(TESTS, self.codec.channels), Told.of([""], self.codec.channels)
        guided = d.guidance.classifier_free(denoiser, 2.5, null.condition)
        plan = d.solvers.dpmpp_2m(d.grid.shifted(process, 25, shift=SHIFT))
        shape = (self.codec.channels, 8, 8, 8)
        made = d.sample(guided, plan, shape=shape, seeds=[7] * len(TESTS), condition=told.condition)
        clouds = [drawn(levelled(one), 4096) for one in surfels_from(self.codec, made) if len(one.index)]
        sheet(clouds, 6, 192).save(path)
        return {**losses, "diversity": diversity(made, self._latents[self.shapes.validation, 0].float())}

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as bf16, and what the card says of this model."""
        state = {key: value.bfloat16().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "transformer.safetensors")
        source = np.asarray(self.shapes.pack.arrays["source"])
        return {
            "architecture": {
                "codec": {"kind": "codec", **self.options.get("codec", {})},
                "transformer": {"kind": "transformer", **self._arguments},
            },
            "process": self.objective.process,
            "grid": {"shift": SHIFT},
            "prediction": self.objective.prediction,
            "conditioners": {
                "prompt": "minilm",
                "category": list(CLASSES[:-1]),
                "image": "efficientnet-lite0",
                "cloud": True,
            },
            "data": {
                "shapes": {"parts": int((source == 0).sum()), "furniture": int((source == 1).sum())},
                "trained": len(self.shapes.train),
                "held_out": len(self.shapes.unseen),
            },
            "attributions": [dict(item) for item in ATTRIBUTIONS],
        }


def _cloud(clouds: Clouds, k: int) -> Cloud:
    colours = ((clouds.colours[k].numpy() + 1) * 127.5).round().astype(np.uint8)
    return Cloud(clouds.points[k].numpy(), clouds.normals[k].numpy(), colours)


def _paired(parts: list[Tensor]) -> Tensor:
    """(N, 2, ...) of batches that are by turns of shapes and of their mirror images."""
    return torch.cat([torch.stack(pair, 1) for pair in zip(parts[::2], parts[1::2], strict=True)])


def _kept(path: Path, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What ``make`` gives, from ``path`` if it was made before."""
    if not path.exists():
        save_file({str(number): part.contiguous() for number, part in enumerate(make())}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    found = load_file(path)
    return tuple(found[str(number)] for number in range(len(found)))
