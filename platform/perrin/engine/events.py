"""What goes into the engine and what comes out of it: frozen values, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perrin.inputs import InputFile

__all__ = [
    "STAGES",
    "Doing",
    "Event",
    "Failed",
    "File",
    "Finished",
    "Loaded",
    "Preview",
    "Progress",
    "Request",
    "Unloaded",
]

STAGES = ("load", "encode", "step", "decode", "write")
"""The stages of a request, in their order."""


@dataclass(frozen=True)
class Request:
    """One thing to make.

    Attributes:
        id: whatever the caller knows it by; unique among the requests that the engine has.
        modality: the modality's name.
        parameters: the request's values, defaults included (`perrin.modality.Parameters.resolved`).
        format: name of the file format to write.
        state: what `Engine.save` returned for this request earlier, to go on from there.
        previews: make previews while sampling.
        metadata: more to write into the files, beside the parameters and the model's hash.
        owner: whose it is; owners share the engine evenly.
        priority: those of the highest priority are sampled first, the others in one tick of four and wherever they
            cost the first ones next to nothing.
        deadline: when it should be done, in seconds on the engine's clock; it goes before everything else once it would
            be late at its present pace.
        strict: share no network call, so that the result has the bits of this request run by itself.
        inputs: the files that its parameters name, by their place there; see `perrin.inputs`.
    """

    id: str
    modality: str
    parameters: Mapping[str, Any]
    format: str
    state: bytes | None = None
    previews: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    priority: int = 0
    deadline: float | None = None
    strict: bool = False
    inputs: Mapping[str, InputFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Doing:
    """What the engine is about to do. Its own code takes microseconds, so what takes long is a plugin's.

    Attributes:
        stage: see `STAGES`.
        requests: ids of the requests that it is done for.
        since: seconds on the engine's clock.
    """

    stage: str
    requests: tuple[str, ...]
    since: float


@dataclass(frozen=True)
class File:
    """A finished file: ``name`` such as ``0.png``, its bytes, and the numbers of the items it holds."""

    name: str
    media_type: str
    data: bytes
    items: tuple[int, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that happened to the request called ``id``."""

    id: str


@dataclass(frozen=True)
class Progress(Event):
    """``done`` of ``total`` units of ``stage`` are finished."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Preview(Event):
    """A small PNG of the clean estimate after sampler row ``step``."""

    step: int
    png: bytes


@dataclass(frozen=True)
class Loaded(Event):
    """A model was loaded for the request.

    Attributes:
        model: its name.
        bytes: what it takes on the device.
        seconds: how long that took.
        offloaded: its weights stay on the host, for the device has no room for them.
    """

    model: str
    bytes: int
    seconds: float
    offloaded: bool = False


@dataclass(frozen=True)
class Unloaded(Event):
    """A model was unloaded to make room for the request; see `Loaded`."""

    model: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Finished(Event):
    """The request is done. ``results`` are the items as Python objects, for callers in the same process."""

    files: tuple[File, ...]
    results: tuple[Any, ...]


@dataclass(frozen=True)
class Failed(Event):
    """The request is over without a result; ``error`` says why. Its neighbours are not affected."""

    error: Exception
