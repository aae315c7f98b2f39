"""The video modality: clips from captions, pictures and other clips."""

from perrin_video.face import VideoParameters, modality

__all__ = ["VideoParameters", "modality"]
