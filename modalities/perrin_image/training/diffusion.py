"""Trains the diffusion model on latents: rectified flow, conditioned on caption tokens and drawing style.

References:
    Esser et al., Scaling Rectified Flow Transformers (2024), section 3.1: velocity, logit-normal times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin import diffusion as d
from perrin.modality import Progress
from perrin.nn import Autoencoder, DiffusionTransformer
from perrin.nn.text import text_encoder
from perrin.pictures import grid_of, to_pixels
from perrin.training.objective import Objective, drop
from perrin.training.watch import diversity, memorised
from perrin_image.training.dataset import Pictures, load_pictures, prompts
from perrin_image.training.latents import LENGTH, Captions, Latents, encode_captions, encode_pictures

__all__ = ["STYLES", "DiffusionTask"]

STYLES = ("noto", "fluent", "3d", "twemoji", "flat", "emojione", "blob", "fx", "streamline", "clipart")
"""Drawing styles, in the order of the network's labels; the label after the last stands for any."""

SHIFT = 2.5
"""Of the sampling times: with guidance, the first steps need most of the care."""


DEFAULT = {"times": {"kind": "logit_normal"}}
"""The objective of a recipe that says nothing: the velocity of a flow."""


class Batch(NamedTuple):
    """Latents (B, C, h, w), tokens (B, L, 384), mask (B, L), style labels (B,)."""

    latents: Tensor
    tokens: Tensor
    mask: Tensor
    label: Tensor


class DiffusionTask:
    """Options: ``network`` (arguments of `perrin.nn.DiffusionTransformer`), ``autoencoder`` (of the codec),
    ``objective`` (of `perrin.training.objective.Objective`), ``text_dropout``, ``style_dropout``, ``mirror``
    (probability), ``emphasis`` (factors on the weight of styles), ``samples`` (how many test prompts are drawn),
    ``variants`` (moved copies of each picture).
    """

    weights = "transformer"
    pictures: Pictures
    captions: Captions
    latents: Latents

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data = dict(options), dict(data)
        torch.manual_seed(0)
        self.network: nn.Module = DiffusionTransformer(**self._arguments)
        self._folders = dict(folders)
        self.objective = Objective.model_validate(self.options.get("objective", DEFAULT))
        self.objective_loss = self.objective.loss()

    @property
    def _arguments(self) -> dict[str, Any]:
        labels = len(STYLES) if not self.options.get("variants") else 2 * len(STYLES) + 1
        return {**self.options.get("network", {}), "classes": labels}

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack the pictures; encode them and their captions."""
        emphasis = self.options.get("emphasis", {})
        self.pictures = load_pictures(self._folders["data"] / "image", progress, emphasis, self._data)
        weights = self._folders["model"] / "autoencoder.safetensors"
        state = {key: value.float() for key, value in load_file(weights).items()}
        self.codec = Autoencoder(**self.options["autoencoder"]).eval()
        self.codec.load_state_dict(state)
        out = self._folders["out"]
        variants = self.options.get("variants", 0)
        self.latents = encode_pictures(self.codec, weights, self.pictures, out, progress, variants)
        self.captions = encode_captions([c for r in self.pictures.records for c in r.captions], out, progress)

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Pictures by weight, some of those that may be mirrored; the first caption half of the time.

        With ``variants``, half of them are moved copies, under labels of their own, so that what is asked for later is
        not moved (Karras et al., EDM, 2022, appendix F.2).
        """
        chosen = generator.choice(self.pictures.train, size, p=self.pictures.weights)
        return self.batch_of(chosen, generator, self.options.get("variants", 0))

    def batch_of(
        self, chosen: np.ndarray[Any, np.dtype[np.int64]], generator: np.random.Generator, moves: int = 0
    ) -> Batch:
        """These pictures, by their indices."""
        texts, labels, latents = [], [], []
        rates = {"text": self.options.get("text_dropout", 0.1), "style": self.options.get("style_dropout", 0.1)}
        without = drop(len(chosen), rates, generator)
        for number, index in enumerate(chosen):
            record = self.pictures.records[index]
            mirrored = record.mirror_ok and generator.random() < self.options.get("mirror", 0.5)
            other = 0 if generator.random() < 0.5 else int(generator.integers(len(record.captions)))
            texts.append("" if without["text"][number] else record.captions[other])
            label, which = len(STYLES) if without["style"][number] else STYLES.index(record.style), int(mirrored)
            if moves and generator.random() < 0.5:
                label, which = label + len(STYLES) + 1, 2 + int(generator.integers(moves))
            labels.append(label)
            latents.append(self.latents[index, which])
        tokens, mask = self.captions.batch(texts)
        return Batch(torch.from_numpy(np.stack(latents)).float(), tokens, mask, torch.tensor(labels))

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says."""
        condition = {"context": batch.tokens, "context_mask": batch.mask, "label": batch.label}
        return self.objective_loss(network, batch.latents, condition, generator)

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """The loss on held-out pictures; draws the 64 test prompts, and says how alike they are to each other and to
        pictures that were trained on."""
        rng = np.random.default_rng(0)
        held = self.pictures.held_out[:512]
        loss = self.loss(network, self.batch_of(held, rng), torch.Generator().manual_seed(0))[0]
        wanted = prompts()[: self.options.get("samples", 64)]
        text, null = text_encoder()(wanted, LENGTH), text_encoder()([""], LENGTH)
        label = torch.zeros(len(wanted), dtype=torch.long)
        process = d.process.from_config(self.objective.process)
        denoiser = d.Denoiser(network, process, self.objective.prediction)
        guided = d.guidance.classifier_free(
            denoiser, 3.0, {"context": null.tokens, "context_mask": null.mask, "label": label[:1]}
        )
        condition = {"context": text.tokens, "context_mask": text.mask, "label": label}
        plan = d.solvers.dpmpp_2m(d.grid.shifted(process, 20, shift=SHIFT))
        latents = d.sample(guided, plan, shape=self.latents.shape[2:], seeds=[7] * len(wanted), condition=condition)
        Image.fromarray(grid_of(to_pixels(self.codec.decode(latents)), columns=8)).save(path)
        seen = torch.from_numpy(np.stack([self.latents[index, 0] for index in self.pictures.train[:4096]]))
        return {
            "held_out_loss": float(loss),
            "diversity": diversity(latents, seen[:512]),
            "memorised": memorised(latents, seen),
        }

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as fp16, and what the card says of this model."""
        state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "transformer.safetensors")
        return {
            "architecture": {
                "autoencoder": {"kind": "autoencoder", **self.options["autoencoder"]},
                "transformer": {"kind": "transformer", **self._arguments},
            },
            "process": self.objective.process,
            "grid": {"shift": SHIFT},
            "prediction": self.objective.prediction,
            "conditioners": {"prompt": "minilm", "style": [*STYLES, "any"]},
            "sizes": [[64, 64]],
            **self.facts(),
        }

    def facts(self) -> dict[str, Any]:
        """What a card says of the data."""
        return {
            "data": {
                "pictures": sum(not r.recoloured for r in self.pictures.records),
                "recoloured": sum(r.recoloured for r in self.pictures.records),
                "held_out": len(self.pictures.held_out),
                "styles": dict(Counter(r.style for r in self.pictures.records if not r.recoloured)),
            },
            "attributions": [
                {"source": f"{package} {version}", "licence": licence, "line": line}
                for package, version, licence, line in self.pictures.attributions
            ],
        }
