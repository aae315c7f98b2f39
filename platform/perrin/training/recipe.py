"""Recipes: readable YAML, checked before anything is fetched or computed.

A recipe names a model and the stages that make it, one network each. ``--set`` changes single values by their dotted
path: ``--set diffusion.batch=64``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perrin.errors import InvalidInput, NotFound
from perrin.plugins import modality
from perrin.training.adapters import AdapterOptions
from perrin.training.elastic import ElasticOptions
from perrin.training.inversion import InversionOptions

__all__ = ["Recipe", "Stage", "read_recipe"]


class Stage(BaseModel):
    """One network's training.

    Attributes:
        task: ``"package.module:Class"`` of the `perrin.training.task.Task`.
        options: the task's own: network, data and loss settings.
        adapter: train low-rank adapters of ``start`` instead of all its weights.
        inversion: train a new word of ``start``.
        elastic: train all weights of ``start``, and hold on to what ``old_data`` need.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    task: str
    options: dict[str, Any] = {}
    adapter: AdapterOptions | None = None
    inversion: InversionOptions | None = None
    elastic: ElasticOptions | None = None
    steps: int = Field(ge=1)
    batch: int = Field(ge=1, le=65536)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    warmup: int = Field(200, ge=0)
    decay: float = Field(0.33, ge=0, le=1, description="Share of the steps, the last, over which the rate falls to 0.")
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.05, ge=0, le=1, description="Width of the averaged weights, as a share of training.")
    ema_snapshots: bool = Field(False, description="Keep snapshots of averages, to make one of any width later.")
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    accumulate: int = Field(1, ge=1, description="Parts of a batch that are computed one after another.")
    minutes: float | None = Field(None, gt=0, description="Stop after this long, if that is before the last step.")
    compile: bool = False
    channels_last: bool = False
    recompute: bool = Field(False, description="Keep less for the gradient and compute it again.")
    shard: bool = Field(False, description="Several processes share the optimizer's state.")
    evaluate_every: int = Field(1000, ge=1)
    save_seconds: float = Field(60, gt=0)

    @model_validator(mode="after")
    def _divides(self) -> Stage:
        ways = [name for name in ("adapter", "inversion", "elastic") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"a stage has one of {' and '.join(ways)}, not both")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} parts (accumulate)")
        return self


class Recipe(BaseModel):
    """A model and how it is made.

    Attributes:
        source: what it was asked for by.
        start: the model whose weights the stages begin with.
        old_data: what ``start`` was trained on, in the manner of ``data``; for `Stage.elastic`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    modality: str
    seed: int = 0
    data: dict[str, Any] = {}
    old_data: dict[str, Any] = {}
    start: str = ""
    stages: tuple[Stage, ...] = Field(min_length=1)
    card: dict[str, Any] = {}
    source: str = ""

    @model_validator(mode="after")
    def _starts(self) -> Recipe:
        for stage in self.stages:
            if not self.start and (stage.adapter or stage.inversion or stage.elastic):
                raise ValueError(f"stage {stage.name} tunes a model: say which with start, or --from NAME")
        return self


def _locate(recipe: str) -> Path:
    """The file of ``image/emoji`` or of a path."""
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise NotFound(f"no recipe at {recipe}; give a YAML file, or MODALITY/NAME such as image/emoji")
        return path
    name, _, rest = recipe.partition("/")
    face = modality(name)
    spec = importlib.util.find_spec(face.package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"the package {face.package} of modality {name} has no folder of recipes")
    folder = Path(next(iter(spec.submodule_search_locations))) / "recipes"
    found = folder / f"{rest}.yaml"
    if not rest.replace("-", "_").isidentifier() or not found.is_file():
        known = ", ".join(sorted(f"{name}/{p.stem}" for p in folder.glob("*.yaml") if not p.stem.startswith("prompts")))
        raise InvalidInput("recipe", recipe, f"one of {known}, or the path of a YAML file")
    return found


def read_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: ``MODALITY/NAME`` or the path of a YAML file.
        overrides: ``dotted.path=value``; a stage is addressed by its name, values are YAML.

    Raises:
        InvalidInput: names the field.
    """
    path = _locate(recipe)
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InvalidInput("recipe", str(path), f"valid YAML ({error})") from None
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InvalidInput("set", override, "PATH=VALUE, such as diffusion.batch=64")
        _set(values, key.split("."), yaml.safe_load(text), override)
    try:
        return Recipe.model_validate({**values, "source": recipe})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(".".join(map(str, first["loc"])), first["input"], first["msg"]) from None


def _set(values: Any, path: list[str], new: Any, shown: str) -> None:
    for stage in values.get("stages", ()):
        if stage.get("name") == path[0]:
            values, path = stage, path[1:]
            break
    for part in path[:-1]:
        values = values.setdefault(part, {})
    if not path or not isinstance(values, dict):
        raise InvalidInput("set", shown, "the dotted path of a single value")
    values[path[-1]] = new
