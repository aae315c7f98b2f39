"""Finds plugins by entry point. Nothing is registered by being imported.

Groups: ``perrin.modalities`` (objects of `perrin.modality.Modality`) and ``perrin.commands`` (subcommands of the
command line). Modalities are found by name and never imported by name.
"""

from __future__ import annotations

import importlib
import warnings
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from perrin.errors import UnknownName

if TYPE_CHECKING:
    from perrin.modality import Modality, Runtime

__all__ = ["commands", "load_object", "modalities", "modality", "runtime"]


@lru_cache(maxsize=1)
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group="perrin.modalities"))}


def modalities() -> dict[str, Modality]:
    """Every modality installed, by name, in alphabetical order; a broken one is left out with a warning."""
    found: dict[str, Modality] = {}
    for name, entry in _entries().items():
        try:
            found[name] = entry.load()
        except Exception as error:  # somebody else's package may raise anything
            warnings.warn(f"modality {name} ({entry.value}) cannot be loaded: {error!r}", RuntimeWarning, stacklevel=2)
    return found


def modality(name: str) -> Modality:
    """The modality called ``name``.

    Raises:
        UnknownName: with the modalities there are.
    """
    entry = _entries().get(name)
    if entry is None:
        raise UnknownName("modality", name, "one of " + (", ".join(_entries()) or "none installed"))
    loaded: Modality = entry.load()
    return loaded


def commands() -> dict[str, EntryPoint]:
    """Subcommands that packages add to the command line, not loaded yet."""
    return {entry.name: entry for entry in sorted(entry_points(group="perrin.commands"))}


def load_object(path: str) -> Any:
    """The object at ``"package.module:attribute"``."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def runtime(face: Modality) -> type[Runtime]:
    """The class that runs ``face``'s models; imports torch.

    Raises:
        NotInstalled: the ``run`` extra is missing.
    """
    try:
        loaded: type[Runtime] = load_object(face.runtime)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"torch", "tokenizers", "safetensors", "PIL"}:
            from perrin.errors import NotInstalled

            raise NotInstalled(f"running {face.name} models", "run") from error
        raise
    return loaded
