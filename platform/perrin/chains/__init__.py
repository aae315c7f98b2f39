"""Chains: jobs of which one takes in what another makes. What fits where, and chains that ship.

A modality says which media types its formats have and which its parameters take, so what fits is known without
knowing any modality. A chain that ships is a file such as ``perrin group submit`` takes, in this package.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

import yaml

from perrin.fields import Field, read_fields
from perrin.wire import ModalityInfo

__all__ = ["Chain", "chains", "fitting", "place"]


@dataclass(frozen=True)
class Chain:
    """A chain that ships.

    Attributes:
        name: what it is called.
        label: what its group is called.
        about: what becomes of what.
        jobs: fields of `perrin.wire.Submission`, each naming its parents by name.
    """

    name: str
    label: str
    about: str
    jobs: tuple[Mapping[str, Any], ...]


def chains(modalities: Collection[str] | None = None) -> dict[str, Chain]:
    """The chains that ship, by name; with ``modalities``, those that need no other."""
    found = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            read = yaml.safe_load(file.read_text())
            name = file.name.removesuffix(".yaml")
            chain = Chain(name, read["label"], read["about"], tuple(read["jobs"]))
            if modalities is None or all(job["modality"] in modalities for job in chain.jobs):
                found[name] = chain
    return found


def fitting(media_types: Sequence[str], accepts: Collection[str]) -> list[int]:
    """Numbers of the media types that a place takes."""
    return [n for n, kind in enumerate(media_types) if any(fnmatchcase(kind, wanted) for wanted in accepts)]


def place(media_types: Sequence[str], target: ModalityInfo) -> Field | None:
    """The parameter of ``target`` that takes the first of ``media_types`` that any takes; None where none does.

    One that names the type goes before one that takes all of its kind; else the order is the modality's own.
    """
    fields = [field for field in read_fields(target.parameters) if field.accepts]
    for kind in media_types:
        named = [field for field in fields if kind in field.accepts]
        taking = named or [field for field in fields if fitting([kind], field.accepts)]
        if taking:
            return taking[0]
    return None
