r"""Trains the judge of captions, see `perrin_image.metrics.captions`.

.. math:: L = -\log\frac{\exp(\tau\, f(x)\cdot s)}{\exp(\tau\, f(x)\cdot s) + \sum_k \exp(\tau\, f(x)\cdot s_k)}

over a caption s of the picture and captions s_k of other pictures; those that are the picture's own as well do not
count. Half of the pictures went through a model's autoencoder, so that its faults are not what is judged.

References:
    van den Oord et al., Representation Learning with Contrastive Predictive Coding (2018), eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin.models import find
from perrin.pictures import grid_of, to_pixels, to_tensor
from perrin_image.data import Pack, attributions, open_pack, prepare
from perrin_image.metrics.captions import CaptionNetwork, candidates, ranks, unseen
from perrin_image.metrics.known import features_of, worn_features_of
from perrin_image.training.dataset import weights_of
from perrin_image.training.latents import encode_captions

__all__ = ["CaptionsTask"]


class Batch(NamedTuple):
    """Features (B, 320); sentences (C, 384), the first B the pictures' own; wrong (B, C), True for others'."""

    features: Tensor
    sentences: Tensor
    wrong: Tensor


class _Ask(nn.Module):
    """The whole of `CaptionNetwork` as one call, which is what the trainer may wrap."""

    def __init__(self, judge: CaptionNetwork) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, features: Tensor, sentences: Tensor) -> Tensor:
        """(B, C) scores times tau."""
        scores: Tensor = self.judge(features) @ self.judge.said(sentences).T
        return scores.float() * self.judge.scale.exp().clamp(max=100)


class CaptionsTask:
    """Options: ``network`` (arguments of `perrin_image.metrics.captions.CaptionNetwork`), ``others`` (captions of
    other pictures that are compared), ``codec`` (the model whose autoencoder half of the pictures go through),
    ``noise`` (added to features, in their deviations).
    """

    weights = "judge"
    pack: Pack

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = {"others": 1024, "codec": "emoji-64", "noise": 0.1, **options}
        torch.manual_seed(0)
        self._judge = CaptionNetwork(**self.options.get("network", {}))
        self.network: nn.Module = _Ask(self._judge)
        self._folders = dict(folders)

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack the pictures; compute their features, and encode their captions."""
        folder = self._folders["data"] / "image"
        self.pack = open_pack(prepare(folder, progress))
        records = self.pack.records
        away = np.array([unseen(record) for record in records])
        self.train, self.candidates = np.flatnonzero(~away), candidates(records)
        if not len(self.train) or not self.candidates:
            raise InvalidInput("pack", f"{len(away)} pictures", "more: some to train on, and some (8%) to hold out")
        self.chances = weights_of([records[i] for i in self.train], {})
        card = find(self.options["codec"], "image")
        plain, (worn, _) = features_of(self.pack, folder, progress), worn_features_of(self.pack, folder, card, progress)
        self.features = torch.stack([plain, worn])
        self._judge.mean.copy_(self.features[:, self.train].mean((0, 1)))
        self._judge.deviation.copy_(self.features[:, self.train].flatten(0, 1).std(0) + 1e-3)
        texts = [caption for record in records for caption in record.captions]
        encoded = encode_captions(texts, self._folders["out"], progress)
        lengths = np.diff(encoded.first)[:, None]
        sums = np.add.reduceat(encoded.tokens.astype(np.float32), encoded.first[:-1], axis=0)
        self.sentences: npt.NDArray[np.float32] = (sums / lengths).astype(np.float32)
        self.number = encoded.number

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Pictures by weight; the first caption half of the time."""
        chosen = generator.choice(self.train, size, p=self.chances)
        some = [self.pack.records[index] for index in chosen]
        own = [
            self.number[r.captions[0 if generator.random() < 0.5 else int(generator.integers(len(r.captions)))]]
            for r in some
        ]
        told = np.concatenate([own, generator.choice(len(self.sentences), int(self.options["others"]))])
        wrong = np.stack([~np.isin(told, [self.number[caption] for caption in record.captions]) for record in some])
        features = self.features[generator.integers(2, size=size), chosen]
        noise = torch.from_numpy(generator.standard_normal(features.shape, np.float32)) * self._judge.deviation
        return Batch(
            features + float(self.options["noise"]) * noise,
            torch.from_numpy(self.sentences[told]),
            torch.from_numpy(wrong),
        )

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss above."""
        scores = network(batch.features, batch.sentences)
        own = scores.diagonal()[:, None]
        others = scores.masked_fill(~batch.wrong, -torch.inf)
        together = torch.cat([own, others], dim=1)
        return F.cross_entropy(together, torch.zeros(len(own), dtype=torch.long, device=own.device)), {}

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """Shares of the unseen pictures whose captions come first, and among the first five; draws 64 of them."""
        assert isinstance(network, _Ask)
        records = self.pack.records
        said = torch.from_numpy(
            np.stack([self.sentences[self.number[records[i].captions[0]]] for i in self.candidates])
        )
        measured: dict[str, float] = {"captions": len(said)}
        for prefix, features in zip(("", "worn_"), self.features, strict=True):
            found = ranks(network.judge, features[self.candidates], said)
            measured |= {f"{prefix}first": found.one, f"{prefix}among_five": found.five}
        x = to_tensor(np.stack([self.pack.pictures[i] for i in self.candidates[:64]]))
        Image.fromarray(grid_of(to_pixels(x), columns=8)).save(path)
        return measured

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights, and what the card says of this model."""
        assert isinstance(network, _Ask)
        state = {key: value.contiguous() for key, value in network.judge.state_dict().items()}
        save_file(state, folder / "judge.safetensors")
        return {
            "architecture": {"judge": dict(self.options.get("network", {}))},
            "data": {"pictures": len(self.train), "unseen": len(self.pack.records) - len(self.train)},
            "attributions": [
                {"source": f"{package} {version}", "licence": licence, "line": line}
                for package, version, licence, line in attributions()
            ],
        }
