"""Runs a recipe: its stages in order, each resumable, then the model folder with its card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perrin.errors import NotInstalled
from perrin.models.card import ModelCard, write_card
from perrin.plugins import load_object
from perrin.settings import Settings
from perrin.training.recipe import Recipe, read_recipe

__all__ = ["cli_train", "train"]


def cli_train(
    recipe: str, overrides: Sequence[str] = (), dry_run: int | None = None, out: Path | None = None, fresh: bool = False
) -> Path:
    """`train` by a recipe's name, with a progress bar; what ``perrin train`` calls.

    Returns:
        The folder of the finished model.
    """
    return train(read_recipe(recipe, overrides), dry_run=dry_run, out=out, fresh=fresh)


def train(
    recipe: Recipe,
    *,
    dry_run: int | None = None,
    out: Path | None = None,
    fresh: bool = False,
    settings: Settings | None = None,
) -> Path:
    """Train every stage of ``recipe``, going on where an earlier run stopped.

    Args:
        recipe: what to make.
        dry_run: stop each stage after this many steps.
        out: folder of the run; by default under ``PERRIN_HOME/training``.
        fresh: forget what is in the folder.
        settings: where ``PERRIN_HOME`` is.

    Returns:
        The folder of the finished model.
    """
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError:
        raise NotInstalled("training", "train") from None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from perrin.training.loop import run_stage

    main = int(os.environ.get("RANK", "0")) == 0  # of several processes, the first one writes
    settings = settings or Settings()
    out = out or settings.home_path / "training" / (recipe.name + ("-dry-run" if dry_run else ""))
    if fresh and out.exists():
        shutil.rmtree(out)
    folders = {"data": settings.home_path / "data", "model": out / "model"}
    folders["data"].mkdir(parents=True, exist_ok=True)
    folders["model"].mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bars:
        for stage in recipe.stages:
            folders["out"] = out / stage.name
            folders["out"].mkdir(parents=True, exist_ok=True)
            task = load_object(stage.task)(stage.options, recipe.data, dict(folders))
            bar = bars.add_task(stage.name, total=stage.steps, note="")

            def prepared(done: int, total: int, label: str, bar: Any = bar) -> None:
                bars.update(bar, completed=done, total=total, note=label)

            def report(step: int, steps: int, numbers: Mapping[str, float], bar: Any = bar) -> None:
                rate = f"  {numbers['items_per_second']:.0f} items/s" if "items_per_second" in numbers else ""
                note = f"loss {numbers['loss']:.4f}{rate}"
                bars.update(bar, completed=step, total=steps, note=note)

            task.prepare(prepared)
            trained = run_stage(stage, task, folders["out"], recipe.seed, report, steps=dry_run)
            if not main:
                continue
            fields |= task.publish(trained.network, folders["model"])
            metrics[stage.name] = {**trained.metrics, "steps": trained.steps, "images": trained.steps * stage.batch}
    card = {"name": recipe.name, "modality": recipe.modality, "recipe": recipe.source}
    if not main:
        return folders["model"]
    write_card(ModelCard.model_validate({**card, **fields, "metrics": metrics, **recipe.card}), folders["model"])
    return folders["model"]
