"""What the audio models learn from."""
