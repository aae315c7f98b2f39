"""What goes into the store and what comes out: frozen values, and the two signals that a write can raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perrin.wire import JobState

__all__ = [
    "Account",
    "Artifact",
    "CancelRequested",
    "Done",
    "Edge",
    "Event",
    "GivenFile",
    "Group",
    "Job",
    "LeaseRef",
    "Move",
    "NewArtifact",
    "NewGroup",
    "NewJob",
    "Pool",
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
class Edge:
    """What a job waits for, and what it takes from it.

    Attributes:
        parent: id of the job to wait for; within a group being submitted also its name.
        parameter: the parameter that takes the id of the parent's artifact; None waits and takes nothing.
        item: which of the parent's artifacts, from 0.
    """

    parent: str
    parameter: str | None = None
    item: int = 0


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be submitted.

    Attributes:
        user_id: whose job it is.
        modality, model, parameters, format: what to make; parameters are resolved, so they alone reproduce it.
        pool: the workers that may claim it.
        label: the user's own note.
        priority: higher runs earlier among the jobs of one user.
        run_after: not before this time, in seconds since 1970.
        deadline: it fails if it has not ended by this time.
        idempotency_key: a second submit by this user with the same key returns the first one's job.
        request_sha256: hash of the request as sent, to tell a repeat from another request under the same key.
        name: what it is called within its group.
        parents: what it waits for.
        group_id: a group of the same user that it is added to.
        inputs: ids of the artifacts and uploads that it takes in, by their place in the parameters.
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
    name: str | None = None
    parents: Sequence[Edge] = ()
    group_id: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewGroup:
    """A group to be submitted.

    Attributes:
        user_id: whose it is; every job's too.
        jobs: at least one; their `Edge.parent` may be the name of another of them.
        label: the user's own note.
        idempotency_key, request_sha256: as of a job.
    """

    user_id: str
    jobs: Sequence[NewJob]
    label: str = ""
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
        label, pool, priority, run_after, deadline: see `NewJob`; a job that is tried again has a later `run_after`.
        group_id, name: the group that it belongs to, and what it is called there.
        retry_of: the job that this one is another try of.
        rank: its place among its user's jobs of a pool: lower runs earlier.
        state: where in its life the job is.
        cancel_requested: somebody asked it to stop.
        epoch: how often it has been claimed.
        owner: the engine process that holds it, or None.
        worker: the worker that has or last had it.
        lease_until: when the present lease ends, or None.
        attempts: how often it was started.
        crashes: how often the process that ran it died.
        retries: how often it was tried again after failing.
        gpu_seconds: seconds of a device that it has taken, in all attempts.
        joules: energy that it has taken, in all attempts, of devices that tell; None if none did.
        stage, done, total: the last progress known; stage is None before any.
        event_count: number of the last event.
        saved_sha256: hash of the last saved sampler state, or None.
        error_kind, error_message: why it did not succeed; before its end, why it is tried again.
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
    group_id: str | None
    name: str | None
    retry_of: str | None
    pool: str
    priority: int
    run_after: float
    deadline: float | None
    rank: float
    state: JobState
    cancel_requested: bool
    epoch: int
    owner: str | None
    worker: str | None
    lease_until: float | None
    attempts: int
    crashes: int
    retries: int
    gpu_seconds: float
    joules: float | None
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
class Done:
    """A job that has come to its end well: its lease, and its result files."""

    lease: LeaseRef
    artifacts: Sequence[NewArtifact] = ()


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
class GivenFile:
    """A file that a job may take in: an artifact, or an upload. ``name`` is what it would be called on disk."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; ``owner`` held it then, under ``epoch``, or None did."""

    job_id: str
    number: int
    at: float
    kind: str
    state: JobState
    stage: str | None
    done: int
    total: int
    message: str
    epoch: int
    owner: str | None
    worker: str | None
    error_kind: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that were submitted together; ``states`` counts them by state."""

    id: str
    label: str
    created_at: float
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of workers.

    Attributes:
        name: what workers and jobs call it.
        state: ``open``, ``paused`` (nothing is claimed), ``draining`` (nothing is submitted) or ``blocked`` (nothing is
            claimed, for results cannot be written; opens by itself).
        reason: why, in somebody's words.
        changed_at: since when.
        states: how many of its jobs are in each state before an end.
    """

    name: str
    state: str
    reason: str
    changed_at: float
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Account:
    """What a user has had of the GPUs: ``used`` are GPU-seconds divided by ``share``."""

    user: str
    share: float
    used: float
    active: bool


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who owns jobs; an operator may also pause, drain and resume pools."""

    id: str
    name: str
    operator: bool = False


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
