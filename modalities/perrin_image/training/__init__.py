"""Training tasks of the image modality: the autoencoder, then the diffusion model on its latents."""
