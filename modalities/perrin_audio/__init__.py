"""Audio for Perrin: a rectified flow over mel spectrograms, and a vocoder. The face; `runtime` imports torch."""

from perrin_audio.face import modality

__all__ = ["modality"]
