"""Trains the shape models: tasks for `perrin train`."""
