"""``perrin train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(help="MODALITY/NAME, or a YAML file.", metavar="RECIPE", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe.", metavar="KEY=VALUE")
    ] = None,
    dry_run: Annotated[
        int | None, typer.Option(min=1, help="Run N steps of everything and write no model.", metavar="N")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Begin with the weights of this model.", metavar="NAME")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints, samples and the model.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Start anew, or go on from the last checkpoint.")
    ] = False,
) -> None:
    """Train a model by a recipe. Interrupted, it goes on from its last checkpoint."""
    from perrin.errors import InvalidInput, NotInstalled
    from perrin.plugins import load_object

    for override in overrides or ():
        if "=" not in override:
            raise InvalidInput("set", override, "KEY=VALUE")
    try:
        run = load_object("perrin.training:cli_train")  # by name: training needs torch, this module does not
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "perrin":
            raise
        raise NotInstalled("training", "train") from error
    run(recipe=recipe, overrides=list(overrides or ()), dry_run=dry_run, out=out, fresh=fresh, start=start)
