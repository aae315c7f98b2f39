"""What the layers along time train on, computed once: latents of rendered clips, and the tokens of their captions.

Where the pictures come from, the recipe says: ``data.pictures`` names a function that returns captioned pictures, such
as that of the image modality. NumPy files beside the run, named by a hash of what they were made from and mapped from
disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perrin.modality import Progress
from perrin.models import ModelCard
from perrin.nn import Autoencoder
from perrin.nn.text import text_encoder
from perrin.plugins import load_object
from perrin_video.clips import PORTRAIT, Clip, draw_clip, held_out, render

__all__ = ["LENGTH", "Clips", "Pictures", "load_clips", "load_pictures", "to_tensor"]

LENGTH = 16
"""Tokens of a caption that are kept."""

Pictures = Any
"""``pixels`` uint8 (N, H, W, 4), ``records`` with ``captions``, ``train`` and ``weights``, ``held_out``,
``attributions``."""


@dataclass(frozen=True)
class Clips:
    """Clips, encoded.

    Attributes:
        latents: float16 (N, 1 + F, C, h, w): the picture itself, and the frames.
        tokens: float16 (N, L, 384) of captions; zeros where there is none.
        mask: bool (N, L).
        poses: float32 (N, F, 7).
        seconds: float32 (N, F).
        captions: N.
        kinds: N.
    """

    latents: npt.NDArray[np.float16]
    tokens: npt.NDArray[np.float16]
    mask: npt.NDArray[np.bool_]
    poses: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float32]
    styles: npt.NDArray[np.int64]
    captions: tuple[str, ...]
    kinds: tuple[str, ...]


def to_tensor(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Straight-alpha uint8 (..., H, W, 4) to (..., 4, H, W) in [-1, 1]: colour over white, and alpha."""
    x = torch.from_numpy(np.array(pixels)).movedim(-1, -3).float() / 255
    colour, alpha = x[..., :3, :, :], x[..., 3:, :, :]
    return torch.cat([colour * alpha + (1 - alpha), alpha], dim=-3) * 2 - 1


def load_pictures(data: Mapping[str, Any], folder: Path, progress: Progress) -> Pictures:
    """The captioned pictures that the recipe names."""
    return load_object(data["pictures"])(folder / "image", progress, data.get("emphasis", {}), data)


def load_clips(
    pictures: Pictures, codec: Autoencoder, base: ModelCard, folder: Path, progress: Progress, count: int
) -> Clips:
    """``count`` clips of ``pictures``, made and encoded once."""
    made_of = f"3 {count} {base.sha256} {len(pictures.records)} {pictures.records[0].id} {held_out()}"
    path = folder / f"clips-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    if not (path / "captions.json").exists():
        _make(pictures, codec, base, path, progress, count)
    arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    said = json.loads((path / "captions.json").read_text())
    return Clips(**arrays, captions=tuple(said["captions"]), kinds=tuple(said["kinds"]))


ARRAYS = ("latents", "tokens", "mask", "poses", "seconds", "styles")


@torch.inference_mode()
def _make(pictures: Pictures, codec: Autoencoder, base: ModelCard, path: Path, progress: Progress, count: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    styles = base.conditioners["style"]
    clips: list[Clip] = []
    latents = None
    for number in range(count):
        generator = np.random.default_rng([number, 2024])
        chosen = int(generator.choice(pictures.train, p=pictures.weights))
        clip = draw_clip(pictures.records, chosen, generator)
        frames = render(to_tensor(pictures.pixels[chosen]), np.concatenate([PORTRAIT, clip.poses]))
        with torch.autocast("cpu", torch.bfloat16):
            z = codec.encode(frames).half().numpy()
        if latents is None:
            latents = np.lib.format.open_memmap(path / "latents.npy", "w+", np.float16, (count, *z.shape))
        latents[number] = z
        clips.append(clip)
        if number % 20 == 0:
            progress(number, count, "making clips")
    assert latents is not None
    latents.flush()
    tokens = np.zeros((count, LENGTH, 384), np.float16)
    mask = np.zeros((count, LENGTH), bool)
    for begin in range(0, count, 256):
        text = text_encoder()([clip.caption for clip in clips[begin : begin + 256]], LENGTH)
        tokens[begin : begin + 256] = text.tokens[:, :LENGTH].half().numpy()
        mask[begin : begin + 256] = text.mask[:, :LENGTH].numpy()
        progress(begin, count, "encoding captions")
    np.save(path / "tokens.npy", tokens)
    np.save(path / "mask.npy", mask)
    np.save(path / "poses.npy", np.stack([clip.poses for clip in clips]))
    np.save(path / "seconds.npy", np.stack([clip.seconds for clip in clips]).astype(np.float32))
    np.save(path / "styles.npy", np.array([styles.index(pictures.records[clip.record].style) for clip in clips]))
    said = {"captions": [clip.caption for clip in clips], "kinds": [clip.motion.kind for clip in clips]}
    (path / "captions.json").write_text(json.dumps(said))
