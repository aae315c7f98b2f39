"""Training: objectives, the loop (on accelerate), averaged weights, recipes."""

from __future__ import annotations

from perrin.training.recipe import Recipe, Stage, read_recipe
from perrin.training.run import cli_train, train

__all__ = ["Recipe", "Stage", "cli_train", "read_recipe", "train"]
