"""The image modality: pictures from prompts."""

from __future__ import annotations

from perrin_image.face import modality

__all__ = ["modality"]
