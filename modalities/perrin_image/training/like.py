"""Trains a reader of pictures: the judge of captions (`perrin_image.training.captions`), folded into a small adapter.

What is published knows the first captions of the pictures that it was trained on, each once. Their keys are brought
into fewer channels by the singular vectors of all keys, which leaves the scores as near as so few channels can, and
written as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.modality import Progress
from perrin.models import find
from perrin.pictures import Pixels, over
from perrin_image.data import attributions
from perrin_image.like import LikeNetwork
from perrin_image.metrics.captions import CaptionNetwork, bare, sentences
from perrin_image.training.captions import Batch, CaptionsTask
from perrin_image.training.dataset import Pictures

__all__ = ["LikeTask", "Nearest"]


class LikeTask:
    """Options: ``base`` (the model that the reader is for), ``space`` (channels of a key), and those of
    `perrin_image.training.captions.CaptionsTask`.
    """

    weights = "like"

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = {"base": "emoji-64", "space": 128, **options}
        inner = {name: value for name, value in self.options.items() if name not in ("base", "space")}
        self.captions = CaptionsTask({"codec": self.options["base"], **inner}, data, folders)
        self.network: nn.Module = self.captions.network

    def prepare(self, progress: Progress) -> None:
        """As of the judge."""
        self.captions.prepare(progress)

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """As of the judge."""
        return self.captions.batch(size, generator)

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """As of the judge."""
        return self.captions.loss(network, batch, generator)

    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """As of the judge."""
        return self.captions.evaluate(network, path)

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the reader, and what the card says of this adapter."""
        records = self.captions.pack.records
        known = sorted({bare(records[i].captions[0]) for i in self.captions.train})
        reader = folded(cast(Any, network).judge, known, int(self.options["space"]))
        state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in reader.state_dict().items()}
        save_file(state, folder / "like.safetensors")
        inner = reader.inner
        arguments = {"features": inner.in_features, "hidden": inner.out_features, "space": len(reader.unit)}
        base = find(self.options["base"], "image")
        return {
            "base": base.name,
            "sizes": [list(size) for size in base.sizes[:1]],
            "architecture": {
                "like": {"kind": "like", **arguments, "captions": len(known), "letters": len(reader.text)}
            },
            "conditioners": {"like": {"captions": len(known)}},
            "data": {"pictures": len(self.captions.train)},
            "attributions": [
                {"source": f"{package} {version}", "licence": licence, "line": line}
                for package, version, licence, line in attributions()
            ],
        }


@torch.no_grad()
def folded(judge: CaptionNetwork, known: Sequence[str], space: int) -> LikeNetwork:
    """The reader of these captions that a judge makes."""
    keys = judge.said(sentences(known))
    to = torch.linalg.svd(keys, full_matrices=False)[2][:space]
    first, last = cast(nn.Linear, judge.layers[0]), cast(nn.Linear, judge.layers[-1])
    text = "\n".join(known).encode()
    reader = LikeNetwork(first.in_features, first.out_features, len(to), len(known), len(text))
    reader.mean.copy_(judge.mean)
    reader.deviation.copy_(judge.deviation)
    reader.inner.load_state_dict(first.state_dict())
    reader.out.weight.copy_(to @ last.weight)
    reader.out.bias.copy_(to @ last.bias)
    small = keys @ to.T
    reader.unit.copy_(small.abs().amax(0).clamp(min=1e-6) / 127)
    reader.keys.copy_((small / reader.unit).round())
    reader.text.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    return reader.eval()


class Nearest:
    """Pictures that are known, to recognise others by: near in colour over white, averaged over 4x4 pixels.

    Args:
        pictures: the data.
        known: indices.
    """

    def __init__(self, pictures: Pictures, known: Sequence[int]) -> None:
        self._groups = [pictures.records[i].group for i in known]
        parts = np.array_split(np.asarray(known), max(1, len(known) // 512))
        self._small = np.concatenate([_coarse(np.array(pictures.pixels[part])) for part in parts])

    def recognises(self, picture: Pixels, group: str) -> tuple[bool, bool]:
        """Whether the nearest, and whether one of the nearest five, shows what ``group`` is."""
        far = np.square(self._small - _coarse(picture[None])).sum(1)
        near = [self._groups[int(n)] for n in np.argsort(far)[:5]]
        return near[0] == group, group in near

    def chance(self, group: str) -> float:
        """How often one drawn blindly does."""
        return self._groups.count(group) / len(self._groups)


def _coarse(pixels: Pixels) -> npt.NDArray[np.float32]:
    values = over(pixels, "white").astype(np.float32) / 255
    coarse: npt.NDArray[np.float32] = values.reshape(len(values), 16, 4, 16, 4, 3).mean((2, 4))
    return coarse.reshape(len(values), -1)
