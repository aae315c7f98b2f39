"""Molecules with coordinates and bonds: data, metrics and training."""
