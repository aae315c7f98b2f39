"""Training of the video modality."""
