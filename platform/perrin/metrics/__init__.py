"""Measures that serve every modality."""
