"""Runs a recipe: its stages in order, each resumable, then the model folder with its card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perrin.errors import NotInstalled
from perrin.models.card import ModelCard, write_card
from perrin.models.library import find
from perrin.plugins import load_object
from perrin.settings import Settings
from perrin.training.recipe import Recipe, Stage, read_recipe

if TYPE_CHECKING:
    from perrin.training.task import Task

__all__ = ["cli_train", "train"]


def cli_train(
    recipe: str,
    overrides: Sequence[str] = (),
    dry_run: int | None = None,
    out: Path | None = None,
    fresh: bool = False,
    start: str | None = None,
) -> Path:
    """`train` by a recipe's name, with a progress bar; what ``perrin train`` calls.

    Returns:
        The folder of the finished model.
    """
    if start is not None:
        overrides = [*overrides, f"start={start}"]
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

    from perrin.training.loop import leave, meet, run_stage

    main = int(os.environ.get("RANK", "0")) == 0  # of several processes, the first one writes
    settings = settings or Settings()
    out = out or settings.home_path / "training" / (recipe.name + ("-dry-run" if dry_run else ""))
    if fresh and out.exists():
        shutil.rmtree(out)
    folders = {"data": settings.home_path / "data", "model": out / "model"}
    folders["data"].mkdir(parents=True, exist_ok=True)
    folders["model"].mkdir(parents=True, exist_ok=True)
    base = find(recipe.start, recipe.modality) if recipe.start else None
    if base is not None and not any(stage.adapter or stage.inversion for stage in recipe.stages):
        for name in base.files:
            if name.endswith(".safetensors") and not (folders["model"] / name).exists():
                shutil.copyfile(base.folder / name, folders["model"] / name)
    fields: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bars:
        for stage in recipe.stages:
            folders["out"] = out / stage.name
            folders["out"].mkdir(parents=True, exist_ok=True)
            task = _task(stage, recipe, folders, base)
            bar = bars.add_task(stage.name, total=stage.steps, note="")

            def prepared(done: int, total: int, label: str, bar: Any = bar) -> None:
                bars.update(bar, completed=done, total=total, note=label)

            def report(step: int, steps: int, numbers: Mapping[str, float], bar: Any = bar) -> None:
                rate = f"  {numbers['items_per_second']:.0f} items/s" if "items_per_second" in numbers else ""
                note = f"loss {numbers['loss']:.4f}{rate}"
                bars.update(bar, completed=step, total=steps, note=note)

            task.prepare(prepared)
            trained = run_stage(stage, task, folders["out"], recipe.seed, report, steps=dry_run)
            if main:
                fields |= task.publish(trained.network, folders["model"])
                metrics[stage.name] = {**trained.metrics, "steps": trained.steps, "images": trained.steps * stage.batch}
            meet()  # the next stage may read what this one published
    leave()
    card = {"name": recipe.name, "modality": recipe.modality, "recipe": recipe.source}
    if not main:
        return folders["model"]
    write_card(ModelCard.model_validate({**card, **fields, "metrics": metrics, **recipe.card}), folders["model"])
    return folders["model"]


def _task(stage: Stage, recipe: Recipe, folders: Mapping[str, Path], base: ModelCard | None) -> Task:
    """The stage's task; around it, what tunes ``base`` instead of training from nothing."""
    make = load_object(stage.task)
    if base is None:
        made: Task = make(stage.options, recipe.data, dict(folders))
        return made
    from perrin.training import variants

    small = stage.adapter is not None or stage.inversion is not None
    read = {**folders, "model": base.folder} if small else dict(folders)
    task = make(stage.options, recipe.data, read)
    weights = getattr(task, "weights", stage.name)
    if stage.adapter is not None:
        return variants.AdapterTask(task, base, weights, stage.adapter)
    if stage.inversion is not None:
        from perrin.nn.text import text_encoder

        near = text_encoder()([stage.inversion.like])
        tokens = near.tokens[0, near.mask[0]][1:-1]  # without the marks of beginning and end
        start = tokens[[i % len(tokens) for i in range(stage.inversion.vectors)]]
        return variants.WordTask(task, base, weights, stage.inversion, start)
    if stage.elastic is not None:
        old = make(stage.options, recipe.old_data or recipe.data, dict(folders))
        return variants.HeldTask(task, base, weights, old, stage.elastic, stage.batch)
    return variants.Tuned(task, base, weights)
