"""What the diffusion model trains on, computed once: latents of all pictures, and the tokens of all captions.

Both are NumPy files beside the run, named by a hash of what they were made from, and mapped from disk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from perrin.modality import Progress
from perrin.models.card import file_hash
from perrin.nn import Autoencoder
from perrin.nn.text import text_encoder
from perrin_image.training.dataset import Pictures, to_tensor

__all__ = ["LENGTH", "Captions", "encode_captions", "encode_pictures"]

LENGTH = 16
"""Tokens of a caption that the model trains on; longer ones are cut."""

Latents = npt.NDArray[np.float16]


@torch.inference_mode()
def encode_pictures(
    network: Autoencoder, weights: Path, pictures: Pictures, folder: Path, progress: Progress, variants: int = 0
) -> Latents:
    """Latents of every picture, of its mirror image, and of ``variants`` moved copies: float16 [N, 2 + V, C, h, w]."""
    made_of = f"{file_hash(weights)} {[r.id for r in pictures.records]}" + (f" {variants}" if variants else "")
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    path = folder / f"latents-{key}.npy"
    if not path.exists():
        count = len(pictures.records)
        made: Latents | None = None
        for begin in range(0, count, 128):
            x = to_tensor(np.array(pictures.pixels[begin : begin + 128]))
            mirror_ok = [record.mirror_ok for record in pictures.records[begin : begin + 128]]
            moved_ones = [moved(x, mirror_ok, seed=begin * variants + i) for i in range(variants)]
            z = torch.stack([network.encode(y) for y in (x, x.flip(-1), *moved_ones)], dim=1).half().numpy()
            made = np.empty((count, *z.shape[1:]), np.float16) if made is None else made
            made[begin : begin + 128] = z
            progress(begin, count, "encoding pictures")
        assert made is not None
        part = path.with_suffix(".part.npy")
        np.save(part, made)
        part.replace(path)
    out: Latents = np.load(path, mmap_mode="r")
    return out


BACKGROUND = torch.tensor([1.0, 1.0, 1.0, -1.0]).view(4, 1, 1)
"""White, and transparent."""


def moved(x: torch.Tensor, mirror_ok: Sequence[bool], seed: int) -> torch.Tensor:
    """``x`` (B, 4, H, W) shrunk by up to a fifth, turned by up to 12 degrees, moved by up to a twelfth of its sides.

    Half of those that may be are mirrored.
    """
    generator = torch.Generator().manual_seed(seed)
    scale, turn, right, down, side = torch.rand(5, len(x), generator=generator)
    scale, turn = 1 + 0.25 * scale, math.radians(12) * (2 * turn - 1)
    mirror = torch.where((side < 0.5) & torch.tensor(mirror_ok), -1.0, 1.0)
    right, down = (2 * right - 1) / 6, (2 * down - 1) / 6
    cos, sin = scale * turn.cos(), scale * turn.sin()
    matrix = torch.stack([cos * mirror, -sin, right, sin * mirror, cos, down], 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x - BACKGROUND, grid, align_corners=False) + BACKGROUND


@dataclass(frozen=True)
class Captions:
    """Encoded captions, ragged.

    Attributes:
        tokens: float16 [total, 384].
        first: (number + 1,) where each caption's tokens begin.
        number: number of each caption string.
    """

    tokens: npt.NDArray[np.float16]
    first: npt.NDArray[np.int64]
    number: dict[str, int]

    def batch(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, LENGTH, 384) and mask (B, LENGTH) of ``texts``."""
        tokens = np.zeros((len(texts), LENGTH, self.tokens.shape[1]), np.float32)
        mask = np.zeros((len(texts), LENGTH), bool)
        for row, text in enumerate(texts):
            begin, end = self.first[self.number[text]], self.first[self.number[text] + 1]
            length = min(LENGTH, end - begin)
            tokens[row, :length] = self.tokens[begin : begin + length]
            mask[row, :length] = True
        return torch.from_numpy(tokens), torch.from_numpy(mask)


def encode_captions(texts: Sequence[str], folder: Path, progress: Progress) -> Captions:
    """Encode every caption once; short ones together with short ones."""
    unique = sorted(set(texts) | {""}, key=lambda text: (len(text.split()), text))
    key = hashlib.sha256("\n".join(unique).encode()).hexdigest()[:16]
    paths = folder / f"captions-{key}.npy", folder / f"captions-{key}.first.npy"
    if not paths[1].exists():
        encoder, rows = text_encoder(), []
        for begin in range(0, len(unique), 512):
            text = encoder(unique[begin : begin + 512])
            rows += [t[m].half().numpy()[:LENGTH] for t, m in zip(text.tokens, text.mask, strict=True)]
            progress(begin, len(unique), "encoding captions")
        np.save(paths[0], np.concatenate(rows))
        np.save(paths[1], np.cumsum([0, *map(len, rows)]))
    return Captions(np.load(paths[0]), np.load(paths[1]), {text: i for i, text in enumerate(unique)})
