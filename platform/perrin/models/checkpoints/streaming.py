"""Runs a part whose weights stay in their files: each layer's are read when it is called, and let go. Imports torch.

accelerate's hooks do it. The files are the model's own safetensors, mapped and not copied, so nothing is written and
what is read often stays in the machine's page cache. Slower, by how fast the disk is.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from perrin.errors import ModelError, NotInstalled
from perrin.models.card import ModelCard
from perrin.models.checkpoints.checking import empty
from perrin.models.checkpoints.headers import read_header
from perrin.models.checkpoints.loading import quietly

__all__ = ["streamed"]


class InFiles(Mapping[str, Tensor]):
    """Tensors by the names that a network has for them, read from files when they are asked for."""

    def __init__(self, places: Mapping[str, tuple[Path, str]], dtype: torch.dtype) -> None:
        self._places, self._dtype = dict(places), dtype

    def __getitem__(self, name: str) -> Tensor:
        path, key = self._places[name]
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def streamed(card: ModelCard, part: str, device: str, dtype: torch.dtype) -> nn.Module:
    """The part called ``part``, whose weights come from its files at every call.

    Raises:
        ModelError: the files lack a weight.
        NotInstalled: accelerate is missing.
    """
    try:
        accelerate: Any = importlib.import_module("accelerate")
        hooks: Any = importlib.import_module("accelerate.hooks")
    except ModuleNotFoundError:
        raise NotInstalled("a model larger than memory", "run") from None
    with accelerate.init_empty_weights(), quietly():
        network = empty(card, part, "cpu").to(dtype).eval().requires_grad_(False)
    tie: Any = getattr(network, "tie_weights", None)
    if tie is not None:
        tie()
    places: dict[str, tuple[Path, str]] = {}
    for name in card.files:
        if name.startswith(f"{part}/") and name.endswith(".safetensors"):
            path = card.path(name)
            places |= {key: (path, key) for key in read_header(path)}
    found: dict[str, tuple[Path, str]] = {}
    tied = {alias: name for name, alias in _aliases(network)}
    for name in network.state_dict():
        tries = (name, f"text_model.{name}", name.removeprefix("text_model."), tied.get(name, name))
        key = next((key for key in tries if key in places), None)
        if key is None:
            raise ModelError(f"model {card.name}: {part} lacks {name}")
        found[name] = places[key]
    hooks.attach_align_device_hook(
        network, execution_device=torch.device(device), offload=True, offload_buffers=False,
        weights_map=InFiles(found, dtype),
    )  # fmt: skip
    for name, buffer in network.named_buffers():
        if buffer.is_meta:
            _put(network, name, InFiles(found, dtype)[name].to(device))
    return network


def _aliases(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of one tensor: the first, and each other one."""
    first: dict[int, str] = {}
    for name, tensor in network.named_parameters(remove_duplicate=False):
        if id(tensor) in first:
            yield first[id(tensor)], name
            yield name, first[id(tensor)]
        first.setdefault(id(tensor), name)


def _put(network: nn.Module, name: str, value: Tensor) -> None:
    parent, _, own = name.rpartition(".")
    network.get_submodule(parent)._buffers[own] = value
