"""Network blocks, written once and used by every modality. Imports torch."""

from __future__ import annotations

from perrin.nn.autoencoder import Autoencoder
from perrin.nn.transformer import DiffusionTransformer

__all__ = ["NETWORKS", "Autoencoder", "DiffusionTransformer"]

NETWORKS = {"autoencoder": Autoencoder, "transformer": DiffusionTransformer}
"""Networks that a model card may name."""
