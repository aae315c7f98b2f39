"""What a model's networks cost for its own size, from the card alone: no weights are read. Imports torch."""

from __future__ import annotations

import torch
from torch import nn

from perrin.models.card import ModelCard
from perrin.nn import NETWORKS, Autoencoder, DiffusionTransformer, UNet
from perrin.nn.cost import Cost, cost_of

__all__ = ["costs"]

TOKENS = 16
"""Of a context, as many as a short sentence has."""


def costs(card: ModelCard) -> dict[str, Cost]:
    """By network: for one sample of the card's first size; parameters alone where the card does not tell a size.

    A network that is told a smaller picture (`perrin.models.card.ModelCard.upscaler`) works at that one's size.
    """
    told = card.conditioners.get("low", {}).get("factor", 1)
    side = (card.sizes[0][0] // told, card.sizes[0][1] // told) if card.sizes else None
    codec = card.architecture.get("autoencoder", {})
    found: dict[str, Cost] = {}
    for name, arguments in card.architecture.items():
        options = dict(arguments)
        kind = options.pop("kind", None)
        if kind not in NETWORKS:
            continue
        with torch.device("meta"):
            network: nn.Module = NETWORKS[kind](**options)
            found[name] = _cost(network, side, codec, options)
    return found


def _cost(
    network: nn.Module, side: tuple[int, int] | None, codec: dict[str, object], options: dict[str, object]
) -> Cost:
    if side is not None and isinstance(network, Autoencoder) and network.dims == len(side):
        return cost_of(network, torch.empty(1, network.channels, *side))
    if side is not None and isinstance(network, DiffusionTransformer | UNet) and network.dims == len(side):
        factor = _factor(codec)
        x, t = torch.empty(1, network.channels, *(n // factor for n in side)), torch.empty(1)
        width = options.get("context", 384 if isinstance(network, DiffusionTransformer) else 0)
        context = torch.empty(1, TOKENS, int(str(width))) if width else None
        return cost_of(network, x, t, context)
    return Cost(sum(parameter.numel() for parameter in network.parameters()), 0, 0, 0)


def _factor(codec: dict[str, object]) -> int:
    """How much smaller the latent's sides are."""
    options = {name: value for name, value in codec.items() if name != "kind"}
    return Autoencoder(**options).factor if options else 1  # type: ignore[arg-type]
