"""Perrin."""
