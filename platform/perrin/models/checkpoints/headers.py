"""What is in a safetensors file, from its first bytes: names, shapes and types of tensors. No torch.

References:
    safetensors format: eight bytes that say how long the header is, the header as JSON, the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from perrin.errors import ModelError

__all__ = ["Entry", "precision_of", "read_header"]

MOST = 100 << 20
"""No header is longer."""

FLOATS: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


class Entry(NamedTuple):
    """A tensor: its type, as the file has it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, by name.

    Raises:
        ModelError: it is none, or is cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MOST, size - 8):
                raise ModelError(f"{path.name} is no safetensors file, or is cut off at {size} bytes")
            table = json.loads(stream.read(length))
        table.pop("__metadata__", None)
        found = {name: Entry(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in table.items()}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in table.values()), default=0)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ModelError(f"{path.name} is no safetensors file: its header is not one") from None
    if size < end:
        raise ModelError(f"{path.name} is cut off: it has {size} of {end} bytes; fetch it again")
    if not found:
        raise ModelError(f"{path.name} holds no tensors")
    return found


def precision_of(tensors: Mapping[str, Entry], shown: str) -> str:
    """The one type of floating-point numbers that ``tensors`` have.

    Raises:
        ModelError: there are several, or one that nothing computes in.
    """
    kinds: dict[str, str] = {}
    for name, entry in tensors.items():
        if entry.dtype.startswith(("F", "BF")):
            kinds.setdefault(entry.dtype, name)
    if len(kinds) > 1:
        some = ", ".join(f"{name} is {FLOATS.get(kind, kind)}" for kind, name in sorted(kinds.items())[:2])
        raise ModelError(f"{shown} mixes precisions: {some}; --dtype float16, bfloat16 or float32 makes them one")
    kind = next(iter(kinds), "F32")
    if kind not in FLOATS:
        raise ModelError(f"{shown} has numbers of type {kind}, wanted {', '.join(FLOATS)}")
    return FLOATS[kind]
