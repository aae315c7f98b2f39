"""3D shapes for Perrin: a rectified flow over latents of surfels. The face; `runtime` imports torch."""

from perrin_shape.face import modality

__all__ = ["modality"]
