"""Takes a checkpoint in: from a folder or file of somebody else's to a model of this installation.

What it is, is found out from descriptions and headers; only then is anything written, into a folder that becomes the
model once it is whole. Copied are numbers and vocabularies. Pickles are read by the restricted reader and written anew
as safetensors, so that nothing of a model's folder can run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perrin import plugins
from perrin.errors import Conflict, ModelError, NotInstalled, StorageError
from perrin.models.card import Checkpoint, ModelCard, read_card, write_card
from perrin.models.checkpoints.folders import INDEX, Part, Pipeline, look_at_pipeline
from perrin.models.checkpoints.licences import licence_in
from perrin.models.checkpoints.schedule import schedule_of
from perrin.models.library import models
from perrin.settings import Settings

__all__ = ["Options", "Source", "add_checkpoint", "look"]

SPARE = 64 << 20
"""Bytes that are left free on the disk."""

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Options:
    """What a person may say about a checkpoint.

    Attributes:
        name: of the model; from the file's or folder's name if None.
        variant: of the weights, such as fp16.
        dtype: change all numbers to this.
        parts: where parts lie that the checkpoint itself lacks, by name.
        base: of an adapter, the model it belongs to.
        kind: of a ControlNet, what it reads.
        licence: what its licence is, where no file says.
    """

    name: str | None = None
    variant: str | None = None
    dtype: str | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    base: str | None = None
    kind: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Source:
    """A checkpoint that was looked at and can be taken in.

    Attributes:
        card: what it will be; its files are not hashed yet.
        bytes: what it will take on disk.
        write: puts its files into a folder.
        title: what it was found to be.
    """

    card: ModelCard
    bytes: int
    write: Callable[[Path], None]
    title: str


def look(path: Path, options: Options, settings: Settings | None = None) -> Source:
    """Find out what is at ``path``, and whether it is whole. Nothing is written.

    Raises:
        ModelError: it is nothing that is known, or broken; says what was seen.
        Conflict: there is a model of this name.
    """
    settings = settings or Settings()
    if (path / INDEX).is_file():
        source = _pipeline(path, options)
    else:
        # Single files and adapters want their tensors looked at.
        try:
            find = plugins.load_object("perrin.models.checkpoints.others:look_at_other")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "perrin":
                raise
            raise NotInstalled("taking in a checkpoint", "hub") from error
        source = find(path, options, settings)
    if source.card.name in models(settings):
        raise Conflict(
            f"there is a model {source.card.name} already: `perrin models remove {source.card.name}` first, "
            "or choose another --name"
        )
    return source


def _pipeline(folder: Path, options: Options) -> Source:
    found = look_at_pipeline(folder, options.variant, options.parts, mixed=options.dtype is not None)
    card = card_of(found, folder, options)

    def write(target: Path) -> None:
        for name, part in found.parts.items():
            write_part(part, target / name, options.dtype)

    return Source(card, sum(part.bytes for part in found.parts.values()), write, found.family.title)


def name_of(path: Path, options: Options) -> str:
    """The model's name: as was said, or that of the file or folder.

    Raises:
        ModelError: no name can be made of it.
    """
    plain = path.stem if path.is_file() else path.name
    name = options.name or _NAME.sub("-", plain).strip("-._")[:100]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ModelError(f"{name[:60]!r} is no name for a model: letters, digits, dots, dashes; see --name")
    return name


def card_of(found: Pipeline, path: Path, options: Options) -> ModelCard:
    """The card of a whole pipeline."""
    family, schedule = found.family, schedule_of(found.scheduler, path.name)
    grid = dict(schedule.grid)
    if family.name in ("flux", "ltx") and grid.get("kind") == "flow":  # their pipelines give the times themselves
        grid = {"kind": "shifted", "shift": grid["shift"]}
    describe = plugins.load_object("perrin.models.checkpoints.describing:described")
    more = describe(found, path.name)
    weights = {name: part for name, part in found.parts.items() if part.kind}
    if family.name == "ddpm" and found.scheduler.get("clip_sample", True):
        more["options"]["clip"] = float(found.scheduler.get("clip_sample_range") or 1.0)
    stored = {part.precision for name, part in weights.items() if part.precision}
    network = weights[family.network].precision or "float32"
    defaults = {**family.defaults, "sampler": schedule.sampler, **more.pop("defaults", {})}
    licence = options.licence or licence_in(path)
    return ModelCard(
        name=name_of(path, options),
        modality=family.modality,
        title=path.stem if path.is_file() else path.name,
        summary=f"{family.title}, added from a checkpoint.",
        licence=licence or "not stated",
        process=schedule.process,
        grid=grid,
        prediction=schedule.prediction,
        multiple=family.multiple,
        defaults=defaults,
        checkpoint=Checkpoint(
            family=family.name,
            parts={name: part.kind for name, part in weights.items()},
            dtype=options.dtype or (network if stored else "float32"),
            options=dict(found.options) | more.pop("options", {}),
        ),
        **more,
    )


def write_part(part: Part, target: Path, dtype: str | None) -> None:
    """Put one part's files into ``target``."""
    target.mkdir()
    if part.kind and (part.pickles or dtype):
        rewrite = plugins.load_object("perrin.models.checkpoints.rewriting:rewrite")
        rewrite(part, target, dtype)
        return
    for name, source in part.files.items():
        shutil.copyfile(source, target / name)
    for name, text in part.renamed.items():
        (target / name).write_text(text)


def add_checkpoint(path: Path, options: Options | None = None, settings: Settings | None = None) -> ModelCard:
    """Take a checkpoint in; its licence counts as accepted.

    Raises:
        ModelError: as of `look`; or a part's weights do not fit its description.
        Conflict: there is a model of this name.
        StorageError: the disk is too small, or cannot be written.
    """
    settings = settings or Settings()
    return take_in(look(path, options or Options(), settings), settings)


def take_in(source: Source, settings: Settings) -> ModelCard:
    """Write what was looked at; raises as `add_checkpoint`."""
    folder, name = settings.home_path / "models", source.card.name
    part = folder / f".{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < source.bytes + SPARE:
            raise StorageError(
                f"{name} takes {source.bytes / 2**30:.2f} GiB, and the disk of {folder} has {free / 2**30:.2f} GiB free"
            )
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        source.write(part)
        card = write_card(source.card, part)
        check = plugins.load_object("perrin.models.checkpoints.checking:check")
        check(card)
        part.rename(folder / name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "perrin":
            raise
        raise NotInstalled("taking in a checkpoint", "hub") from error
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_card(folder / name)
