r"""Trains the picture autoencoder.

.. math:: L = \|x - \hat x\|_1 + \|\nabla x - \nabla\hat x\|_1 + \beta\,KL + \gamma\,LPIPS(x, \hat x)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from perrin.modality import Progress
from perrin.nn import Autoencoder
from perrin.pictures import grid_of, to_pixels
from perrin.training.perceptual import Perceptual
from perrin_image.training.dataset import Pictures, load_pictures, to_tensor

__all__ = ["AutoencoderTask"]


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


class AutoencoderTask:
    """Options: ``network`` (arguments of `perrin.nn.Autoencoder`), ``kl`` (beta) and ``perceptual`` (gamma)."""

    pictures: Pictures

    def __init__(self, options: Mapping[str, Any], data: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
        self.options, self._data = dict(options), dict(data)
        torch.manual_seed(0)
        self.network: nn.Module = Autoencoder(**self.options.get("network", {}))
        self._folder = folders["data"] / "image"
        self._look = Perceptual("vgg") if self.options.get("perceptual") else None

    def prepare(self, progress: Progress) -> None:
        """Fetch and pack the pictures."""
        self.pictures = load_pictures(self._folder, progress, None, self._data)

    def batch(self, size: int, generator: np.random.Generator) -> Tensor:
        """Pictures by weight, half of them mirrored: (size, 4, 64, 64)."""
        chosen = generator.choice(self.pictures.train, size, p=self.pictures.weights)
        pixels = np.stack([self.pictures.pixels[i] for i in chosen])
        flipped = generator.random(size) < 0.5
        pixels[flipped] = pixels[flipped, :, ::-1]
        return to_tensor(pixels).to(memory_format=torch.channels_last)

    def loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss above; the latent's noise comes from torch's global generator, seeded here."""
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        out, mean, log_variance = network(batch)
        out, mean, log_variance = out.float(), mean.float(), log_variance.float()
        pixel = (out - batch).abs().mean()
        edges = sum(((a - b).abs().mean() for a, b in zip(_gradients(out), _gradients(batch), strict=True)), pixel * 0)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        total = pixel + edges + float(self.options.get("kl", 1e-3)) * kl
        numbers = {"pixel": pixel.detach(), "kl": kl.detach()}
        if self._look is not None:
            looks = self._look.to(batch.device).rgb(out, batch)
            total, numbers["perceptual"] = total + float(self.options["perceptual"]) * looks, looks.detach()
        return total, numbers

    @torch.no_grad()
    def evaluate(self, network: nn.Module, path: Path) -> dict[str, float]:
        """PSNR over held-out pictures; draws 32 of them above their reconstructions."""
        held = np.resize(self.pictures.held_out, 256)  # repeated where there are fewer
        x = to_tensor(np.stack([self.pictures.pixels[i] for i in held]))
        out = network(x)[0].clamp(-1, 1)
        mse = ((out - x) / 2)[:, :3].square().mean(dim=(1, 2, 3))
        pairs = torch.stack([x[:32].view(4, 8, 4, 64, 64), out[:32].view(4, 8, 4, 64, 64)], dim=1)
        Image.fromarray(grid_of(to_pixels(pairs.reshape(64, 4, 64, 64)), columns=8)).save(path)
        return {"psnr": float((-10 * torch.log10(mse)).mean())}

    @torch.no_grad()
    def publish(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        """Measure the latent's mean and deviation per channel, and write the weights as fp16."""
        assert isinstance(network, Autoencoder)
        chosen = np.random.default_rng(0).choice(self.pictures.train, 2048, p=self.pictures.weights)
        moments = [
            network.moments(to_tensor(np.stack([self.pictures.pixels[i] for i in part])))[0]
            for part in np.array_split(chosen, 16)
        ]
        means = torch.cat(moments)
        network.latent_mean.copy_(means.mean(dim=(0, 2, 3)))
        network.latent_std.copy_(means.std(dim=(0, 2, 3)))
        state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
        save_file(state, folder / "autoencoder.safetensors")
        arguments = {"kind": "autoencoder", **self.options.get("network", {})}
        return {"architecture": {"autoencoder": arguments}}
