"""Reads tensors, and nothing but tensors, from files that somebody else made. Imports torch.

A safetensors file holds numbers only. A .ckpt, .pt, .pth, .bin or .npy file is a pickle, which can name any function
to be called while it is read; torch's restricted unpickler builds tensors and plain containers and refuses the rest.
Before that the archive itself is looked at, so that a small file cannot unpack to a large one.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from perrin.errors import ModelError

__all__ = ["PICKLED", "read_tensors", "tensors_in"]

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".npy")
"""Endings of files that are pickles; .npy since EDM and GeoLDM published theirs so."""

GIB = 1 << 30


def read_tensors(path: Path, most: int = 64 * GIB) -> dict[str, Tensor]:
    """Every tensor of a file by its name; nested ones by their path, with dots.

    Args:
        path: a safetensors file, or a pickle of tensors.
        most: refuse a file whose tensors take more bytes than this.

    Raises:
        ModelError: it is none of these, is broken, holds no tensors or something else, or is too large; says which.
    """
    if not path.is_file():
        raise ModelError(f"{path.name} is not a file that can be read")
    if path.stat().st_size > most:
        raise ModelError(f"{path.name} has {path.stat().st_size >> 20} MiB, more than the {most >> 20} MiB allowed")
    with path.open("rb") as stream:
        start = stream.read(16)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix in PICKLED:
            return _unpickled(path, start, most)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path.name} is not a whole safetensors file: {_line(error)}") from None
    raise ModelError(f"{path.name} cannot be read: wanted .safetensors or one of {', '.join(PICKLED)}")


def _unpickled(path: Path, start: bytes, most: int) -> dict[str, Tensor]:
    if start.startswith(b"PK"):
        _check_archive(path, most)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path.name} holds more than tensors: {_refused(error)}") from None
    except Exception as error:  # torch raises anything at all for a broken file
        raise ModelError(f"{path.name} is broken: {_line(error)}") from None
    tensors = dict(tensors_in(found))
    if not tensors:
        raise ModelError(f"{path.name} holds no tensors")
    return {name: tensor.clone() for name, tensor in tensors.items()}  # views would share storages on saving


def _check_archive(path: Path, most: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{path.name} is broken: {_line(error)}") from None
    total = sum(entry.file_size for entry in entries)
    if total > most:
        raise ModelError(f"{path.name} unpacks to {total >> 20} MiB, more than the {most >> 20} MiB allowed")
    packed = next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise ModelError(f"{path.name} is not written by torch.save: {packed[:60]!r} in it is compressed")


def tensors_in(value: Any, prefix: str = "", depth: int = 8) -> Iterator[tuple[str, Tensor]]:
    """The tensors inside nested mappings, with their paths; everything else is left out."""
    if isinstance(value, Tensor):
        yield prefix or "tensor", value.detach()
    elif isinstance(value, Mapping) and depth:
        for name, inner in value.items():
            yield from tensors_in(inner, f"{prefix}.{name}" if prefix else str(name), depth - 1)


def _refused(error: Exception) -> str:
    """The name of what was refused."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it asks for {found[1]}, which is refused" if found else _line(error)


def _line(error: Exception) -> str:
    return (next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:160]
