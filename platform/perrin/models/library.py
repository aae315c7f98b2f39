"""Looks models up by name: first in the configured folders, then in the packages that bring modalities."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from perrin.errors import Conflict, ModelError, StorageError, UnknownName
from perrin.models.card import CARD, ModelCard, file_hash, read_card
from perrin.plugins import modalities
from perrin.settings import Settings

__all__ = ["add", "broken", "find", "models", "remove", "upscaler_of", "verify", "weight_bytes"]


def _shipped(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "weights"


def _folders(settings: Settings) -> Iterator[Path]:
    yield from settings.model_folders
    for face in modalities().values():
        folder = _shipped(face.package)
        if folder is not None:
            yield folder


def _cards(settings: Settings | None) -> Iterator[ModelCard | ModelError]:
    for folder in _folders(settings or Settings()):
        for path in sorted(folder.glob(f"*/{CARD}")):
            try:
                yield read_card(path.parent)
            except ModelError as error:
                yield error


def models(settings: Settings | None = None) -> dict[str, ModelCard]:
    """Every model there is, by name. A folder that comes earlier hides a model of the same name in a later one.

    One that is broken hides nothing and stops nobody; `broken` tells of it.
    """
    found: dict[str, ModelCard] = {}
    for card in _cards(settings):
        if isinstance(card, ModelCard):
            found.setdefault(card.name, card)
    return found


def broken(settings: Settings | None = None) -> list[ModelError]:
    """What is wrong with each folder that has a card which cannot be read."""
    return [error for error in _cards(settings) if isinstance(error, ModelError)]


def find(name: str, modality: str | None = None, settings: Settings | None = None) -> ModelCard:
    """The model called ``name``.

    Raises:
        UnknownName: there is no such model (of that modality); lists those there are.
    """
    known = {key: card for key, card in models(settings).items() if modality in (None, card.modality)}
    if name not in known:
        for error in broken(settings):
            if f"/{name}/" in error.message:
                raise error
        raise UnknownName("model", name, "one of " + (", ".join(known) or "none installed"))
    return known[name]


def upscaler_of(card: ModelCard, settings: Settings | None = None) -> ModelCard | None:
    """The model that makes the results of ``card`` larger; None where it names none, or one that is not installed."""
    return models(settings).get(card.upscaler) if card.upscaler else None


def weight_bytes(card: ModelCard, settings: Settings | None = None) -> int:
    """Bytes of the files that are read to run a model: its own, and those of the models that it works with."""
    image = models(settings).get(card.image) if card.image else None
    parts = [part for part in (card, upscaler_of(card, settings), image) if part is not None]
    return sum((part.folder / name).stat().st_size for part in parts for name in part.files)


def verify(card: ModelCard) -> None:
    """Check that every file of the model is there and has the hash that its card states.

    Raises:
        ModelError: names the first file that is missing or changed.
    """
    for name, digest in card.files.items():
        path = card.folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"model {card.name}: {name} is missing from {card.folder}")
        if file_hash(path) != digest:
            raise ModelError(f"model {card.name}: {name} is not the file its card describes; install the model again")


def add(source: Path, settings: Settings | None = None) -> ModelCard:
    """Copy a model folder to where models are looked for: its card and the files that the card names, checked.

    Args:
        source: the folder.
        settings: where ``PERRIN_HOME`` is.

    Raises:
        ModelError: it is no model, or one whose files are not those of its card.
        Conflict: there is a model of this name.
        StorageError: the copy cannot be written.
    """
    settings = settings or Settings()
    card = read_card(source)
    verify(card)
    if card.name in models(settings):
        raise Conflict(f"there is a model {card.name} already: `perrin models remove {card.name}` first")
    folder = settings.home_path / "models"
    part = folder / f".{card.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name in (CARD, *card.files):
            (part / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, part / name)
        verify(read_card(part))  # what was copied, not what was looked at
        part.rename(folder / card.name)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return read_card(folder / card.name)


def remove(name: str, settings: Settings | None = None) -> None:
    """Delete a model that was added.

    Raises:
        UnknownName: there is no such model.
        Conflict: it ships with Perrin.
    """
    settings = settings or Settings()
    card = find(name, settings=settings)
    if card.folder.parent != settings.home_path / "models":
        raise Conflict(f"model {name} was not added by you: it lies in {card.folder}")
    shutil.rmtree(card.folder)
