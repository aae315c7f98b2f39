r"""Low-rank adapters that differ by sample, in one batch.

A linear layer W with the adapter (A, B) of rank r computes, for a sample x with its own A and B,

.. math:: y = W x + b + B\,(A x)

and so does a convolution, where A is one of the same extent to r channels, and B of extent 1.

`Adapted` takes the adapters as conditions, with a leading axis for the samples like any other. So whatever stacks
conditions, such as the engine, lets requests with different adapters share a network call: two batched products per
layer. One of a lower rank, of other layers, or none at all, is one of zeros where it lacks something: `Adapted.fills`
says so to whoever stacks.

References:
    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), section 4.1;
    Chen et al., Punica: Multi-Tenant LoRA Serving (2023), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput

__all__ = ["Adapted", "adapter"]

PREFIX = "lora."

Adapter = dict[str, Tensor]
"""Conditions: ``lora.LAYER.down`` (1 or B, r, in) and ``lora.LAYER.up`` (1 or B, out, r); of a convolution ``down`` has
the axes of its extent too."""


def adapter(weights: Mapping[str, Tensor], scale: float = 1.0) -> Adapter:
    """The conditions that stand for an adapter.

    Args:
        weights: ``LAYER.lora_A.weight`` (r, in) and ``LAYER.lora_B.weight`` (out, r), as PEFT saves them; its prefix
            ``base_model.model.`` may stand before a layer's name.
        scale: times B; alpha / r of the training.

    Raises:
        InvalidInput: a tensor of another name, or one without its partner.
    """
    found: Adapter = {}
    for name, tensor in weights.items():
        layer = name.removeprefix("base_model.model.")
        for ending, role, factor in ((".lora_A.weight", "down", 1.0), (".lora_B.weight", "up", scale)):
            if layer.endswith(ending):
                found[f"{PREFIX}{layer.removesuffix(ending)}.{role}"] = tensor[None] * factor
                break
        else:
            raise InvalidInput("adapter", name, "names that end with .lora_A.weight or .lora_B.weight")
    for name in found:
        stem, _, role = name.rpartition(".")
        partner = f"{stem}.{'up' if role == 'down' else 'down'}"
        if partner not in found:
            raise InvalidInput("adapter", name, f"{partner} beside it")
    return found


class Adapted(nn.Module):
    """``network`` whose linear layers and convolutions take adapters by sample, as conditions; see `adapter`.

    Layers must see the batch as their first axis.

    Args:
        network: is called.
        of: the part of it whose layers they are, and which names them; all of it if None.

    Attributes:
        fills: conditions of these beginnings stand for zeros where they are missing or smaller.
    """

    fills = (PREFIX,)

    def __init__(self, network: nn.Module, of: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self._now: Adapter = {}
        self._layers = {
            name: layer for name, layer in (of or network).named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        for name, layer in self._layers.items():
            layer.register_forward_hook(self._hook(name))

    def forward(self, x: Any, t: Tensor, **condition: Any) -> Any:
        """One evaluation; conditions whose name begins with ``lora.`` are the adapters.

        Raises:
            InvalidInput: an adapter of a layer that the network has not, or of another shape.
        """
        adapters = {name: condition.pop(name) for name in [*condition] if name.startswith(PREFIX)}
        if not adapters:
            return self.network(x, t, **condition)
        with self.under(adapters), torch.compiler.set_stance("force_eager"):  # compiled is what the layers do alone
            return self.network(x, t, **condition)

    @contextmanager
    def under(self, adapters: Adapter) -> Iterator[None]:
        """Inside, the layers have these adapters, however they are called; raises as `forward`."""
        for name, tensor in adapters.items():
            stem, _, role = name.removeprefix(PREFIX).rpartition(".")
            layer = self._layers.get(stem)
            if layer is None:
                raise InvalidInput(
                    "adapter", name, f"a linear layer of the network, such as {next(iter(self._layers))}"
                )
            wanted = _extent(layer, role)
            if tensor.dim() != len(wanted) + 1 or any(
                w not in (None, n) for n, w in zip(tensor.shape[1:], wanted, strict=True)
            ):
                shown = "x".join("r" if n is None else str(n) for n in wanted)
                raise InvalidInput("adapter", f"{name} {tuple(tensor.shape)}", f"{shown} for each sample")
        self._now = adapters
        try:
            yield
        finally:
            self._now = {}

    def _hook(self, name: str) -> Any:
        def add(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            down = self._now.get(f"{PREFIX}{name}.down")
            if down is None:
                return None
            x, up = args[0], self._now[f"{PREFIX}{name}.up"]
            if isinstance(layer, nn.Conv2d):
                return output + _convolved(layer, x, down.to(x), up.to(x))
            flat = x.reshape(len(x), -1, x.shape[-1])
            inner = torch.bmm(flat, down.to(x).expand(len(x), -1, -1).transpose(1, 2))
            return output + torch.bmm(inner, up.to(x).expand(len(x), -1, -1).transpose(1, 2)).reshape(output.shape)

        return add


def _extent(layer: nn.Module, role: str) -> tuple[int | None, ...]:
    """What an adapter's half looks like for one sample; None is the rank."""
    if isinstance(layer, nn.Conv2d):
        own = (None, layer.in_channels // layer.groups, *layer.kernel_size)
        return own if role == "down" else (layer.out_channels, None)
    assert isinstance(layer, nn.Linear)
    return (None, layer.in_features) if role == "down" else (layer.out_features, None)


def _convolved(layer: nn.Conv2d, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """What the adapters add to a convolution: every sample by its own weights, as groups of one call."""
    batch, rank = len(x), down.shape[1]
    down = down.expand(batch, *down.shape[1:]).reshape(batch * rank, *down.shape[2:])
    inside = F.conv2d(x.reshape(1, -1, *x.shape[2:]), down, None, layer.stride, layer.padding, layer.dilation, batch)
    grid = inside.shape[2:]
    inner = inside.reshape(batch, rank, -1)
    return torch.bmm(up.expand(batch, -1, -1), inner).reshape(batch, -1, *grid)
