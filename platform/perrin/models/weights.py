"""Reads a model's networks: safetensors only, checked against the card's hashes. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from perrin.errors import ModelError
from perrin.models.card import ModelCard
from perrin.nn import NETWORKS

__all__ = ["load_network"]


def load_network(
    card: ModelCard,
    name: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kinds: Mapping[str, Callable[..., nn.Module]] = NETWORKS,
) -> nn.Module:
    """The network called ``name`` in the card's architecture, in evaluation mode.

    Args:
        card: of the model.
        name: key of ``card.architecture``; its weights are in ``NAME.safetensors``.
        device: where it goes.
        dtype: what it computes in.
        kinds: the networks that may be meant; a modality with one of its own names it.

    Raises:
        ModelError: unknown architecture; or weights missing, changed, broken or of another shape.
    """
    arguments = dict(card.architecture.get(name, {}))
    kind = arguments.pop("kind", None)
    if kind not in kinds:
        raise ModelError(f"model {card.name}: network {name} is of kind {kind!r}, wanted one of {', '.join(kinds)}")
    data = card.read(f"{name}.safetensors")
    try:
        with torch.device("meta"):
            network: nn.Module = kinds[kind](**arguments)
        network.load_state_dict(load(data), assign=True)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"model {card.name}: {name}.safetensors does not fit its card: {error}") from None
    return network.to(device, dtype).eval().requires_grad_(False)
