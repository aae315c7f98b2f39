r"""Makes a picture four times as large: diffusion of what the bicubic enlargement lacks.

.. math:: r = g\,(x - U(l)), \qquad x = U(l) + r / g

with the large picture x, the small one l with noise of a known level added, and its bicubic enlargement U(l). A flow
carries noise to r, told l and the level; the gain g is large, so that it begins near U(l), at a distance of 1 / g. The
network sees 4x4 pixels as 16 times the channels, beside the pixel of l that they replace, so it works at l's own
resolution. Having no attention it takes pictures of any size; large ones it sees in tiles, which overlap, with one
noise over all of them.

References:
    Ho et al., Cascaded Diffusion Models for High Fidelity Image Generation (2022), section 4.2 (noise on l);
    Li and He, Back to Basics: Let Denoising Generative Models Denoise (2025): of patches, predict what is clean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perrin import diffusion as d
from perrin.errors import Degenerate, InvalidInput, ModelError
from perrin.models import ModelCard
from perrin.models.weights import load_network
from perrin.nn.circular import circular
from perrin.nn.tiling import tiled
from perrin.pictures import CHANNELS, Pixels, to_pixels, to_tensor, transparent
from perrin_image.sizes import FACTOR

__all__ = ["FACTOR", "INSIDE", "OUTSIDE", "Residual", "Upscaler", "bicubic", "enlarge"]

OUTSIDE = CHANNELS * FACTOR**2
"""Channels that the network answers with."""

INSIDE = 2 * OUTSIDE + CHANNELS + 1
"""Channels that the network is given: the noisy residual, what it adds to, the small picture, and how noisy that is."""

RIM = 16
"""Pixels of the other side that are put around a tile: more than the network sees in one evaluation."""

TILE, OVERLAP = 128, 16
"""Of a small picture with longer sides than the first, tiles of it are seen, which share the second."""


def bicubic(low: Tensor) -> Tensor:
    """U: (B, C, h, w) at four times the sides, by Keys' kernel with a = -1/2, as Pillow does it."""
    return F.interpolate(low.float(), scale_factor=FACTOR, mode="bicubic", antialias=True)


class Residual:
    """A network of `perrin.nn` as one of residuals: ``(r, t, low=..., level=...)`` to as much as r.

    Of U(l) it is given g (U(l) - l), pixel by pixel: that is large where r is, and zero where r is. From l alone it
    would have to find four channels of signal among sixty-four of noise.

    Args:
        network: (B, INSIDE, h, w) and (B,) times to (B, OUTSIDE, h, w).
        gain: g.
    """

    def __init__(self, network: Callable[..., Tensor], gain: float) -> None:
        self._network, self._gain = network, gain

    def __call__(self, r: Tensor, t: Tensor, low: Tensor, level: Tensor) -> Tensor:
        """r (B, 4, 4h, 4w), low (B, 4, h, w), level (B,)."""
        plane = level.to(low).view(-1, 1, 1, 1).expand(-1, 1, *low.shape[2:])
        detail = self._gain * (bicubic(low) - F.interpolate(low.float(), scale_factor=FACTOR))
        given = torch.cat([F.pixel_unshuffle(r, FACTOR), F.pixel_unshuffle(detail, FACTOR), low, plane], dim=1)
        if max(low.shape[2:]) > TILE:
            return F.pixel_shuffle(tiled(lambda part: self._answer(part, t), given, 1, TILE, OVERLAP), FACTOR)
        return F.pixel_shuffle(self._answer(given, t), FACTOR)

    def _answer(self, given: Tensor, t: Tensor) -> Tensor:
        return self._network(given.contiguous(memory_format=torch.channels_last), t)


def enlarge(
    network: Callable[..., Any],
    low: Tensor,
    seeds: list[int],
    *,
    gain: float,
    steps: int,
    shift: float = 1.0,
    level: float = 0.0,
    process: dict[str, Any] | None = None,
    prediction: str = "x0",
) -> Tensor:
    """Large pictures (B, 4, 4h, 4w) of small ones (B, 4, h, w), both about [-1, 1].

    Args:
        network: as `Residual` takes it.
        low: the small pictures.
        seeds: one a picture; a picture does not depend on those beside it.
        gain: g.
        steps: evaluations of the network.
        shift: of the grid of times; above 1: more of them where it is noisy.
        level: of the noise that is added to ``low`` first, which hides its faults; the network is told.
        process, prediction: what the network was trained for.
    """
    flow = d.process.from_config(process or {"kind": "flow"})
    if level:
        noise = [torch.randn(low.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        low = low + level * torch.stack(noise).to(low)
    residual = d.sample(
        d.Denoiser(Residual(network, gain), flow, prediction),
        d.solvers.ddim(d.grid.shifted(flow, steps, shift=shift)),
        shape=(CHANNELS, *(FACTOR * side for side in low.shape[2:])),
        seeds=seeds,
        condition={"low": low, "level": torch.full((len(low),), level, device=low.device)},
        device=low.device,
    )
    return bicubic(low) + cast(Tensor, residual) / gain


class Upscaler:
    """A model of this kind on one device.

    Attributes:
        card: the model's card.
        device: where it runs.
        network: its weights.
    """

    def __init__(self, card: ModelCard, device: str, network: torch.nn.Module) -> None:
        self.card, self.device = card, device
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        """Read the network of ``card`` onto ``device``.

        Raises:
            ModelError: the model does not make pictures larger, or its files are broken.
        """
        if "unet" not in card.architecture or "gain" not in card.conditioners.get("low", {}):
            got = ", ".join(card.architecture) or "nothing"
            raise ModelError(f"model {card.name}: wanted a unet that is told a small picture, got {got}")
        return cls(card, device, load_network(card, "unet", device))

    @torch.inference_mode()
    def enlarge(self, pictures: Pixels, seed: int, steps: int | None = None) -> Pixels:
        """RGBA (B, h, w, 4) with straight alpha to (B, 4h, 4w, 4) alike; picture i has seed + i.

        Args:
            pictures: uint8; h and w are divisible by what the network halves them by.
            seed: of the first picture.
            steps: by default the card's.

        Raises:
            InvalidInput: pictures of another form.
        """
        halvings = 2 ** (len(self.card.architecture["unet"]["widths"]) - 1)
        if pictures.ndim != 4 or pictures.shape[-1] != 4 or pictures.dtype != np.uint8:
            raise InvalidInput("pictures", f"{pictures.dtype} {pictures.shape}", "uint8 (B, h, w, 4)")
        if any(side % halvings for side in pictures.shape[1:3]):
            raise InvalidInput("pictures", f"{pictures.shape[2]}x{pictures.shape[1]}", f"sides divisible by {halvings}")
        told = self.card.conditioners["low"]
        made = enlarge(
            self.network,
            to_tensor(pictures).to(self.device),
            [seed + number for number in range(len(pictures))],
            gain=told["gain"],
            steps=steps or self.card.defaults["steps"],
            shift=self.card.grid.get("shift", 1.0),
            level=told["level"],
            process=self.card.process,
            prediction=self.card.prediction,
        )
        if not torch.isfinite(made).all():
            raise Degenerate(
                f"model {self.card.name} returned NaN or infinity; check its weights: perrin models verify"
            )
        return np.stack([transparent(picture) for picture in to_pixels(made)])

    def enlarge_tile(self, picture: Pixels, seed: int) -> Pixels:
        """One picture (h, w, 4) to (4h, 4w, 4); what meets at its opposite sides does so in the large one too."""
        rim = min(RIM, *picture.shape[:2])
        around = np.pad(picture, ((rim, rim), (rim, rim), (0, 0)), mode="wrap")
        with circular(self.network):
            large = self.enlarge(around[None], seed)[0]
        inner = slice(FACTOR * rim, -FACTOR * rim)
        made: Pixels = large[inner, inner]
        return made
