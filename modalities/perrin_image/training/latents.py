"""What the diffusion model trains on, computed once: latents of all pictures, and the tokens of all captions.

Both are NumPy files beside the run, named by a hash of what they were made from, and mapped from disk.
"""

from __future__ import annotations

import hashlib
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
    network: Autoencoder, weights: Path, pictures: Pictures, folder: Path, progress: Progress
) -> Latents:
    """Latents of every picture and of its mirror image: float16 [N, 2, C, h, w]."""
    key = hashlib.sha256(f"{file_hash(weights)} {[r.id for r in pictures.records]}".encode()).hexdigest()[:16]
    path = folder / f"latents-{key}.npy"
    if not path.exists():
        count = len(pictures.records)
        made: Latents | None = None
        for begin in range(0, count, 128):
            x = to_tensor(np.array(pictures.pixels[begin : begin + 128]))
            z = torch.stack([network.encode(x), network.encode(x.flip(-1))], dim=1).half().numpy()
            made = np.empty((count, *z.shape[1:]), np.float16) if made is None else made
            made[begin : begin + 128] = z
            progress(begin, count, "encoding pictures")
        assert made is not None
        part = path.with_suffix(".part.npy")
        np.save(part, made)
        part.replace(path)
    out: Latents = np.load(path, mmap_mode="r")
    return out


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
