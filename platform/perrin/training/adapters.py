r"""Low-rank adapters: trained beside frozen weights, saved by themselves, stacked with weights, merged for good.

.. math:: W' = W + w\,\frac{\alpha}{r}\, B A, \qquad A \in \mathbb R^{r \times in},\ B \in \mathbb R^{out \times r}

B is zero at first, so training begins with the network as it was. Files have PEFT's names (``LAYER.lora_A.weight``,
``LAYER.lora_B.weight``), and alpha / r in their header. `perrin.nn.lora` runs several in one batch.

References:
    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), section 4.1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput, ModelError

__all__ = [
    "Adapter",
    "AdapterOptions",
    "LowRank",
    "inject",
    "load_adapter",
    "merge",
    "read_adapter",
    "save_adapter",
    "stack",
]


class AdapterOptions(BaseModel):
    """Which layers are adapted, and how much.

    Attributes:
        rank: r.
        alpha: by default r, so that the scale is 1.
        layers: a regular expression that a layer's name must match somewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(8, ge=1, le=1024)
    alpha: float | None = Field(None, gt=0)
    layers: str = ""


class Adapter(NamedTuple):
    """An adapter's weights: by layer (A, B), and the scale alpha / r."""

    layers: Mapping[str, tuple[Tensor, Tensor]]
    scale: float


class LowRank(nn.Module):
    """A linear layer, frozen, and what an adapter adds to it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result and the adapter's."""
        added = F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))
        out: Tensor = self.base(x) + self.scale * added
        return out


def inject(network: nn.Module, options: AdapterOptions) -> list[str]:
    """Freeze ``network`` and put adapters, to be trained, beside its linear layers; the layers' names.

    Raises:
        InvalidInput: no layer's name matches.
    """
    network.requires_grad_(False)
    found = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and re.search(options.layers, name)
    ]
    if not found:
        known = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        raise InvalidInput("adapter.layers", options.layers, f"an expression that matches a layer, such as {known[0]}")
    for name in found:
        parent, _, child = name.rpartition(".")
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(network.get_submodule(parent), child, LowRank(layer, options.rank, options.alpha or options.rank))
    return found


def _adapted(network: nn.Module) -> Iterator[tuple[str, LowRank]]:
    yield from ((name, layer) for name, layer in network.named_modules() if isinstance(layer, LowRank))


def save_adapter(network: nn.Module, path: Path) -> None:
    """Write the adapters of an injected network.

    Raises:
        InvalidInput: it has none.
    """
    layers = dict(_adapted(network))
    if not layers:
        raise InvalidInput("network", type(network).__name__, "a network that adapters were injected into")
    tensors = {f"{name}.lora_A.weight": layer.lora_A for name, layer in layers.items()}
    tensors |= {f"{name}.lora_B.weight": layer.lora_B for name, layer in layers.items()}
    scale = next(iter(layers.values())).scale
    save_file({name: t.detach().half().contiguous() for name, t in tensors.items()}, path, {"scale": repr(scale)})


def load_adapter(path: Path) -> Adapter:
    """Read an adapter that this project or PEFT wrote.

    Raises:
        ModelError: it is not one; says why.
    """
    try:
        return read_adapter(path.read_bytes(), path.name)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error}") from None


def read_adapter(data: bytes, shown: str) -> Adapter:
    """`load_adapter` of a file's bytes, which messages call ``shown``."""
    try:
        tensors = load(data)
        notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except safetensors.SafetensorError as error:
        raise ModelError(f"{shown} cannot be read as safetensors: {error}") from None
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight", name)
        if match is None:
            wanted = "names that end with .lora_A.weight or .lora_B.weight"
            raise ModelError(f"{shown} is no adapter: wanted {wanted}, got {name[:80]}")
        pairs.setdefault(match[1], {})[match[2]] = tensor.float()
    alone = next((name for name, pair in pairs.items() if len(pair) < 2), None)
    if alone is not None or not pairs:
        raise ModelError(f"{shown} is no adapter: {f'{alone} has only one half' if alone else 'it is empty'}")
    return Adapter({name: (pair["A"], pair["B"]) for name, pair in pairs.items()}, float(notes.get("scale", 1.0)))


def stack(adapters: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Several adapters, each with a weight, as one: their ranks add up, and so does what they do."""
    names = dict.fromkeys(name for adapter, _ in adapters for name in adapter.layers)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        parts = [(a.layers[name], a.scale * weight) for a, weight in adapters if name in a.layers]
        layers[name] = (torch.cat([down for (down, _), _ in parts]), torch.cat([up * w for (_, up), w in parts], 1))
    return Adapter(layers, 1.0)


@torch.no_grad()
def merge(network: nn.Module, adapter: Adapter, weight: float = 1.0) -> nn.Module:
    """Add an adapter to the network's own weights, for good; with minus its weight, take it away again.

    Raises:
        InvalidInput: the adapter is another network's; names the layer.
    """
    linear = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    for name, (down, up) in adapter.layers.items():
        layer = linear.get(name)
        if layer is None or layer.weight.shape != (up.shape[0], down.shape[1]):
            got = "no such layer" if layer is None else f"{tuple(layer.weight.shape)}"
            raise InvalidInput(
                "adapter", f"{name} {(up.shape[0], down.shape[1])}", f"the layers of this network: {got}"
            )
    for name, (down, up) in adapter.layers.items():
        layer = linear[name]
        layer.weight += (weight * adapter.scale * (up.double() @ down.double())).to(layer.weight)
    return network
