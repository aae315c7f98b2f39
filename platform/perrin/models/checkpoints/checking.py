"""Checks that the weights of a checkpoint's parts are those of its descriptions: every key, every shape. Imports torch.

The networks are built without memory (torch's meta device), so that a part of any size is checked from its headers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch
from torch import nn

from perrin.errors import ModelError
from perrin.models.card import ModelCard
from perrin.models.checkpoints.families import library_of
from perrin.models.checkpoints.headers import Entry, read_header
from perrin.models.checkpoints.loading import class_of, load_part, quietly, read_config

__all__ = ["check", "compare", "empty"]


def check(card: ModelCard) -> None:
    """Check every part of a checkpoint.

    Raises:
        ModelError: names the part and the first key that is missing, too many, or of another shape.
    """
    assert card.checkpoint is not None
    for part, kind in card.checkpoint.parts.items():
        shown = f"{card.name}: {part}"
        if library_of(kind, shown) == "transformers":
            load_part(card, part, "cpu", torch.float32)  # it knows older names of its layers, which headers do not tell
            continue
        tensors: dict[str, Entry] = {}
        for path in sorted((card.folder / part).glob("*.safetensors")):
            tensors |= read_header(path)
        compare(empty(card, part), tensors, shown)


def empty(card: ModelCard, part: str, device: str = "meta") -> nn.Module:
    """A part without its weights; on another device than ``meta``, as whoever calls it arranges.

    Raises:
        ModelError: its description is not one of its class.
    """
    assert card.checkpoint is not None
    shown = f"{card.name}: {part}"
    kind = class_of(card.checkpoint.parts[part], shown)
    config = read_config(card.folder / part)
    try:
        with torch.device(device), quietly():
            ours = library_of(kind.__name__, shown) == "diffusers"
            network: nn.Module = kind.from_config(config) if ours else kind(kind.config_class.from_dict(config))
    except Exception as error:  # a description may be wrong in any way
        raise ModelError(f"{shown}/config.json describes no {kind.__name__}: {_line(error)}") from None
    return network


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def compare(network: nn.Module, tensors: Mapping[str, Entry], shown: str) -> None:
    """Raise `ModelError` unless ``tensors`` are the weights of ``network``."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [name for name in wanted if name not in tensors]
    if missing:
        like = difflib.get_close_matches(missing[0], tensors, 1, 0)
        seen = f"; nearest there is {like[0]}" if like else ""
        raise ModelError(f"{shown} lacks {len(missing)} of {len(wanted)} tensors, the first is {missing[0]}{seen}")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise ModelError(f"{shown}: {name} has shape {tensors[name].shape}, its config.json wants {shape}")
    extra = [name for name in tensors if name not in wanted and "position_ids" not in name]
    if extra:
        raise ModelError(f"{shown} has {len(extra)} tensors that its config.json knows nothing of, such as {extra[0]}")
