"""Models on disk: a folder with ``card.yaml`` and safetensors files, found by name.

Reading cards needs no torch; `perrin.models.weights` does.
"""

from __future__ import annotations

from perrin.models.card import ModelCard
from perrin.models.library import add, broken, find, models, remove, upscaler_of, verify, weight_bytes

__all__ = ["ModelCard", "add", "broken", "find", "models", "remove", "upscaler_of", "verify", "weight_bytes"]
