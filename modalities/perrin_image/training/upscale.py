"""Trains what makes 64x64 pictures 256x256: see `perrin_image.upscaling`.

Half of the small pictures went through the autoencoder of the model before this one, so that they have its faults;
half have noise of a random level, which the network is told, to hide other faults in.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.errors import InvalidInput
from perrin.modality import Progress
from perrin.models import find
from perrin.models.weights import load_network
from perrin.nn import Autoencoder, UNet
from perrin.pictures import Pixels, grid_of, to_pixels, to_tensor, transparent
from perrin.training.objective import Objective
from perrin.training.perceptual import Perceptual, Trunk
from perrin_image.data import attributions
from perrin_image.data.large import LargePack, open_large, prepare_large
from perrin_image.training.dataset import held_out, weights_of
from perrin_image.training.fidelity import psnr, ssim
from perrin_image.upscaling import FACTOR, INSIDE, OUTSIDE, Residual, bicubic, enlarge

__all__ = ["UpscaleTask", "worn"]

DEFAULT = {"prediction": "x0", "power": 1, "times": {"kind": "logit_normal", "mean": 1.5, "deviation": 1.5}}
"""The objective of a recipe that says nothing: of flat areas the residual is zero, and nothing near it; and where it is
noisy decides, for a small picture leaves little open."""

WINDOW = 64
"""Side of the part of a crop whose looks count; the trunk costs more than the network."""


class Batch(NamedTuple):
    """Large crops (B, 4, 4s, 4s), the small pictures of them (B, 4, s, s) without noise, and its levels (B,)."""

    large: Tensor
    low: Tensor
    level: Tensor


class UpscaleTask:
    """Options: ``network`` (arguments of `perrin.nn.UNet`), ``objective`` (of `perrin.training.objective.Objective`;
    it predicts x0), ``gain`` (of the residual), ``noise`` (the highest level), ``codec`` (the model whose autoencoder
    wears half of the small pictures), ``crop`` (its side in small pixels), ``perceptual`` (factor on LPIPS), ``trunk``
    (of LPIPS), ``looks`` (how many of a batch it looks at), ``emphasis`` (factors on the weight of styles), ``steps``,
    ``shift`` and ``level`` (of sampling), ``samples`` (held-out pictures that are measured).
    """

    weights = "unet"
    pack: LargePack
    worn: Pixels

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options = {"gain": 16.0, "noise": 0.1, "crop": 32, "steps": 4, "shift": 3.0, "level": 0.0, **options}
        torch.manual_seed(0)
        self.network: nn.Module = UNet(**self._arguments)
        self._folders = dict(folders)
        self.objective = Objective.model_validate(self.options.get("objective", DEFAULT))
        if self.objective.prediction != "x0" or self.objective.perceptual:
            got = {"prediction": self.objective.prediction, "perceptual": self.objective.perceptual}
            raise InvalidInput("objective", got, "x0, and perceptual as an option of its own: a residual has no looks")
        self._loss = self.objective.loss()
        trunk: Trunk = self.options.get("trunk", "vgg")
        self._look = Perceptual(trunk).to(memory_format=torch.channels_last) if self.options.get("perceptual") else None  # type: ignore[call-overload]
        self._baseline: dict[str, dict[str, float]] = {}

    @property
    def _arguments(self) -> dict[str, Any]:
        return {**self.options.get("network", {}), "channels": INSIDE, "out_channels": OUTSIDE, "attention": []}

    def prepare(self, progress: Progress) -> None:
        """Draw and pack the pictures; wear the small ones."""
        self.pack = open_large(prepare_large(self._folders["data"] / "image", progress))
        held = np.array([held_out(record) for record in self.pack.records])
        self.train, self.held_out = np.flatnonzero(~held), np.flatnonzero(held)
        if not len(self.train) or not len(self.held_out):
            raise InvalidInput("pack", f"{len(held)} pictures", "more: some to train on, and some (2%) to hold out")
        chosen = [self.pack.records[i] for i in self.train]
        self.chances = weights_of(chosen, self.options.get("emphasis", {}))
        codec = find(self.options.get("codec", "emoji-64"), "image")
        key = hashlib.sha256(f"{codec.sha256} {[r.id for r in self.pack.records]}".encode()).hexdigest()[:16]
        path = self._folders["out"] / f"worn-{key}.npy"
        if not path.exists():
            network = load_network(codec, "autoencoder")
            assert isinstance(network, Autoencoder)
            part = path.with_suffix(".part.npy")
            np.save(part, worn(network, self.pack.small, progress))
            part.replace(path)
        self.worn = np.load(path, mmap_mode="r")

    def batch(self, size: int, generator: np.random.Generator) -> Batch:
        """Crops by weight, in one of the eight ways to turn and mirror them; half of the small ones are worn."""
        side = int(self.options["crop"])
        large: list[Pixels] = []
        low: list[Pixels] = []
        for index in generator.choice(self.train, size, p=self.chances):
            small = self.worn if generator.random() < 0.5 else self.pack.small
            y, x = (int(v) for v in generator.integers(small.shape[1] - side + 1, size=2))
            turns, mirrored = int(generator.integers(4)), generator.random() < 0.5
            for pixels, factor, into in ((self.pack.pictures, FACTOR, large), (small, 1, low)):
                top, left, length = factor * y, factor * x, factor * side
                part = np.rot90(pixels[index, top : top + length, left : left + length], turns)
                into.append(part[:, ::-1] if mirrored else part)
        level = float(self.options["noise"]) * (2 * generator.random(size) - 1).clip(0) ** 2  # half have none
        return Batch(to_tensor(np.stack(large)), to_tensor(np.stack(low)), torch.from_numpy(level).float())

    def loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the objective says of the residual; and how different the enlarged picture looks."""
        noise = torch.randn(batch.low.shape, generator=generator).to(batch.low)
        low = batch.low + batch.level.view(-1, 1, 1, 1) * noise
        base, gain = bicubic(low), float(self.options["gain"])
        residual, answers = Residual(network, gain), []

        def ask(*inputs: Tensor, **condition: Tensor) -> Tensor:
            answers.append(residual(*inputs, **condition))
            return answers[0]

        condition = {"low": low, "level": batch.level}
        total, numbers = self._loss(ask, gain * (batch.large - base), condition, generator)
        if self._look is not None:
            y, x = (int(v) for v in torch.randint(base.shape[-1] - WINDOW + 1, (2,), generator=generator))
            some = slice(int(self.options.get("looks", len(base))))
            part = (some, slice(3), slice(y, y + WINDOW), slice(x, x + WINDOW))
            estimate = base[part] + answers[0][part].float() / gain
            looks = self._look.to(base.device).rgb(estimate, batch.large[part])
            numbers = {**numbers, "residual": total.detach(), "perceptual": looks.detach()}
            total = total + float(self.options["perceptual"]) * looks
        return total, numbers

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """PSNR, SSIM and LPIPS of held-out pictures enlarged, beside bicubic's; the same of worn ones.

        Draws low, bicubic, ours and real, a line each for six clean small pictures, then for six worn ones.
        """
        chosen = self.held_out[:: max(1, len(self.held_out) // int(self.options.get("samples", 24)))]
        real = to_tensor(np.stack([self.pack.pictures[i] for i in chosen]))
        lines: list[Tensor] = []
        measured: dict[str, float] = {}
        for prefix, small in (("", self.pack.small), ("worn_", self.worn)):
            low = to_tensor(np.stack([small[i] for i in chosen]))
            ours = torch.cat([self._enlarged(network, low[i : i + 1], seed=i) for i in range(len(low))])
            plain = bicubic(low).clamp(-1, 1)
            if prefix not in self._baseline:
                self._baseline[prefix] = {f"{k}_bicubic": v for k, v in _measure(plain, real).items()}
            rows = {**_measure(ours, real), **self._baseline[prefix]}
            measured |= {prefix + key: value for key, value in rows.items()}
            blocks = low.repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
            fours = [torch.stack(four) for four in zip(blocks, plain, ours, real, strict=True)]
            lines += fours[:: max(1, len(fours) // 6)][:6]
        Image.fromarray(grid_of(to_pixels(torch.cat(lines)), columns=4)).save(path)
        return measured

    def _enlarged(self, network: nn.Module, low: Tensor, seed: int) -> Tensor:
        settings = {key: self.options[key] for key in ("gain", "steps", "shift", "level")}
        return enlarge(network, low, [seed], **settings, process=self.objective.process).clamp(-1, 1)

    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Write the averaged weights as fp16, and what the card says of this model."""
        save_file({key: v.half().contiguous() for key, v in network.state_dict().items()}, folder / "unet.safetensors")
        told = {"factor": FACTOR, **{key: self.options[key] for key in ("gain", "level", "noise")}}
        return {
            "architecture": {"unet": {"kind": "unet", **self._arguments}},
            "process": self.objective.process,
            "grid": {"shift": self.options["shift"]},
            "prediction": self.objective.prediction,
            "conditioners": {"low": told},
            "defaults": {"steps": self.options["steps"]},
            "sizes": [[256, 256]],
            "data": {
                "pictures": len(self.pack.records),
                "held_out": len(self.held_out),
                "styles": dict(Counter(record.style for record in self.pack.records)),
            },
            "attributions": [
                {"source": f"{package} {version}", "licence": licence, "line": line}
                for package, version, licence, line in attributions()
            ],
        }


@torch.inference_mode()
def worn(codec: Autoencoder, small: Pixels, progress: Progress) -> Pixels:
    """What is left of ``small``, uint8 (N, h, w, 4) with straight alpha, after ``codec``: alike."""
    made = np.empty(small.shape, np.uint8)
    for begin in range(0, len(small), 128):
        latents = codec.encode(to_tensor(np.array(small[begin : begin + 128])))
        made[begin : begin + 128] = transparent(to_pixels(codec.decode(latents)))
        progress(begin, len(small), "wearing pictures")
    return made


def _measure(ours: Tensor, real: Tensor) -> dict[str, float]:
    """Means over pictures (B, 4, H, W) in [-1, 1], of their colours over white."""
    ours, real, look = ours[:, :3], real[:, :3], Perceptual("alex")
    # One by one: at 256x256 the trunk takes hundreds of MB for each.
    looks = torch.cat([look(x, y) for x, y in zip(ours.split(1), real.split(1), strict=True)])
    return {
        "psnr": float(psnr(ours, real).mean()),
        "ssim": float(ssim(ours, real).mean()),
        "lpips": float(looks.mean()),
    }
