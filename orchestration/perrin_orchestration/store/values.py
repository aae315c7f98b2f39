"""What goes into the store and what comes out: frozen values, and the two signals that a write can raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perrin.wire import JobState

__all__ = [
    "Artifact",
    "CancelRequested",
    "Event",
    "Job",
    "LeaseRef",
    "Move",
    "NewArtifact",
    "NewJob",
    "StaleLease",
    "User",
    "Worker",
]


class StaleLease(Exception):
    """The write named a lease that is no longer held; it touched no row.

    Attributes:
        refs: the leases that were refused.
    """

    def __init__(self, *refs: LeaseRef) -> None:
        super().__init__("lease lost: " + ", ".join(f"{ref.id} at epoch {ref.epoch}" for ref in refs))
        self.refs = refs


class CancelRequested(Exception):
    """The lease is held, but its job has been asked to stop, so it cannot be committed."""


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Names one holding of one job: every write of a worker carries it.

    Attributes:
        id: the job.
        epoch: how often the job had been claimed when this lease was given.
        owner: the engine process that holds it.
    """

    id: str
    epoch: int
    owner: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be submitted.

    Attributes:
        user_id: whose job it is.
        modality, model, parameters, format: what to make; parameters are resolved, so they alone reproduce it.
        pool: the workers that may claim it.
        label: the user's own note.
        priority: higher runs earlier.
        run_after: not before this time, in seconds since 1970.
        deadline: fails if still queued at this time.
        idempotency_key: a second submit by this user with the same key returns the first one's job.
        request_sha256: hash of the request as sent, to tell a repeat from another request under the same key.
    """

    user_id: str
    modality: str
    model: str
    parameters: Mapping[str, Any]
    format: str
    pool: str
    label: str = ""
    priority: int = 0
    run_after: float = 0.0
    deadline: float | None = None
    idempotency_key: str | None = None
    request_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it.

    Attributes:
        number: rises with every submit; the order of equal priorities.
        id: 32 hex digits.
        user_id, user: whose it is, by id and by name.
        modality, model, parameters, format: what to make.
        label, pool, priority, run_after, deadline: see `NewJob`.
        state: where in its life the job is.
        cancel_requested: somebody asked it to stop.
        epoch: how often it has been claimed.
        owner: the engine process that holds it, or None.
        worker: the worker that has or last had it.
        lease_until: when the present lease ends, or None.
        attempts: how often it was started.
        crashes: how often the process that ran it died.
        stage, done, total: the last progress known; stage is None before any.
        event_count: number of the last event.
        saved_sha256: hash of the last saved sampler state, or None.
        error_kind, error_message: why it did not succeed.
        created_at, started_at, finished_at: seconds since 1970.
        request_sha256: see `NewJob`.
    """

    number: int
    id: str
    user_id: str
    user: str
    modality: str
    model: str
    parameters: Mapping[str, Any]
    format: str
    label: str
    pool: str
    priority: int
    run_after: float
    deadline: float | None
    state: JobState
    cancel_requested: bool
    epoch: int
    owner: str | None
    worker: str | None
    lease_until: float | None
    attempts: int
    crashes: int
    stage: str | None
    done: int
    total: int
    event_count: int
    saved_sha256: str | None
    error_kind: str | None
    error_message: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    request_sha256: str

    @property
    def lease(self) -> LeaseRef:
        """The lease that is held on the job now."""
        return LeaseRef(self.id, self.epoch, self.owner or "")


@dataclass(frozen=True, slots=True)
class Move:
    """Progress of one job: ``done`` of ``total`` units of ``stage``, and how long to extend the lease, in seconds."""

    lease: LeaseRef
    stage: str
    done: int
    total: int
    seconds: float
    kind: str = "progress"


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A result file whose bytes are in the artifact store already."""

    name: str
    media_type: str
    size: int
    sha256: str
    items: Sequence[int]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed result file."""

    id: str
    job_id: str
    name: str
    media_type: str
    size: int
    sha256: str
    items: tuple[int, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job."""

    job_id: str
    number: int
    at: float
    kind: str
    state: JobState
    stage: str | None
    done: int
    total: int
    message: str


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who owns jobs."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's row. ``jobs`` are those that it holds now."""

    id: str
    host: str
    pid: int
    device: str
    pool: str
    state: str
    models: tuple[str, ...]
    started_at: float
    seen_at: float
    finished_jobs: int = 0
    memory_mb: float | None = None
    cpu_percent: float | None = None
    gpu_percent: float | None = None
    drain: bool = False
    jobs: tuple[str, ...] = field(default=())
