"""Writes the weights of a part anew: pickles as safetensors, numbers in another precision. Imports torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from perrin.models.checkpoints.families import library_of
from perrin.models.checkpoints.folders import Part
from perrin.models.checkpoints.loading import DTYPES
from perrin.models.tensors import read_tensors

__all__ = ["changed", "rewrite", "write_weights"]


def rewrite(part: Part, target: Path, dtype: str | None) -> None:
    """Put a part's files into ``target``, its weights as one safetensors file."""
    tensors: dict[str, Tensor] = {}
    for name, source in part.files.items():
        if name.endswith(".safetensors"):
            tensors |= read_tensors(source)
        elif not name.endswith(".index.json"):
            shutil.copyfile(source, target / name)
    for source in part.pickles:
        tensors |= read_tensors(source)
    write_weights(tensors, target, part.kind, dtype)


def write_weights(tensors: dict[str, Tensor], target: Path, kind: str, dtype: str | None) -> None:
    """The safetensors file of a part of class ``kind``."""
    stem = "diffusion_pytorch_model" if library_of(kind, target.name) == "diffusers" else "model"
    save_file(
        {name: changed(tensor, dtype).contiguous() for name, tensor in tensors.items()},
        target / f"{stem}.safetensors", {"format": "pt"},
    )  # fmt: skip


def changed(tensor: Tensor, dtype: str | None) -> Tensor:
    """In another precision, where it is a floating-point number."""
    wanted: torch.dtype | None = DTYPES[dtype] if dtype else None
    return tensor.to(wanted) if wanted is not None and tensor.is_floating_point() else tensor
