"""Network blocks, written once and used by every modality. Imports torch."""

from __future__ import annotations

from perrin.nn.attention import Attention, attend
from perrin.nn.autoencoder import Autoencoder
from perrin.nn.control import Controlled, SideNetwork
from perrin.nn.equivariant import EquivariantNetwork, Geometry
from perrin.nn.points import PointTransformer
from perrin.nn.temporal import TemporalAttention, TemporalConv
from perrin.nn.transformer import DiffusionTransformer
from perrin.nn.unet import UNet

__all__ = [
    "NETWORKS",
    "Attention",
    "Autoencoder",
    "Controlled",
    "DiffusionTransformer",
    "EquivariantNetwork",
    "Geometry",
    "PointTransformer",
    "SideNetwork",
    "TemporalAttention",
    "TemporalConv",
    "UNet",
    "attend",
]

NETWORKS = {
    "autoencoder": Autoencoder,
    "equivariant": EquivariantNetwork,
    "points": PointTransformer,
    "transformer": DiffusionTransformer,
    "unet": UNet,
}
"""Networks that a model card may name."""
