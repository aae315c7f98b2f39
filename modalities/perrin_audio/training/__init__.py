"""The tasks that train audio models."""
