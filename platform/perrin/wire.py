"""What travels between the gateway and its clients: one definition, used by both sides.

The paths, all under ``/v1``; every one but ``/v1/health`` wants ``Authorization: Bearer API-KEY``::

    GET    /health                        Health
    GET    /me                            UserRecord: whose API key it is
    GET    /modalities                    [ModalityInfo]
    GET    /models                        [ModelInfo]
    POST   /jobs                          Submission -> JobRecord (201; 200 when the Idempotency-Key was seen before)
    GET    /jobs?state=&modality=&search=&before=&limit=      [JobRecord], newest first
    GET    /jobs?dead=true&before=&limit=                     [JobRecord] that came to nothing and were not tried again
    GET    /jobs/{id}                     JobRecord, with its children
    POST   /jobs/{id}/cancel              JobRecord; 409 once the job has ended
    POST   /jobs/{id}/retry               JobRecord of a new job (201); 409 unless the old one came to nothing
    GET    /jobs/{id}/history             [AttemptRecord]
    GET    /jobs/{id}/events?after=N      server-sent events, each an EventRecord; ends after the job's end
    GET    /jobs/{id}/preview             image/png, 404 until there is one
    POST   /groups                        GroupSubmission -> GroupRecord (201; 200 when the Idempotency-Key was seen)
    GET    /groups?limit=                 [GroupRecord] without their jobs, newest first
    GET    /groups/{id}                   GroupRecord
    POST   /groups/{id}/cancel            GroupRecord; 409 once all of it has ended
    GET    /artifacts/{id}                the bytes of a result, or of an upload
    POST   /uploads                       a file as it is -> UploadRecord (201); its id goes into parameters
    GET    /workers                       [WorkerRecord]
    GET    /pools                         [PoolRecord]
    POST   /pools/{name}                  PoolAction -> PoolRecord; for operators
    GET    /metrics                       Prometheus text

An error is ``{"error": {"kind": "InvalidInput", "field": "steps" or null, "message": "one line"}}`` with the status of
the class in `perrin.errors`.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

__all__ = [
    "ArtifactRecord",
    "AttemptRecord",
    "EventRecord",
    "GroupRecord",
    "GroupSubmission",
    "Health",
    "JobError",
    "JobRecord",
    "JobState",
    "ModalityInfo",
    "ModelInfo",
    "Parent",
    "PoolAction",
    "PoolRecord",
    "ProgressRecord",
    "StageRecord",
    "Submission",
    "UploadRecord",
    "UserRecord",
    "WorkerRecord",
]


class JobState(enum.StrEnum):
    """waiting -> queued -> leased -> running -> committing -> succeeded | failed | cancelled | quarantined."""

    WAITING = "waiting"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    COMMITTING = "committing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"

    @property
    def terminal(self) -> bool:
        """No further state follows."""
        return self in (self.SUCCEEDED, self.FAILED, self.CANCELLED, self.QUARANTINED)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Health(_Record):
    """The gateway's own state."""

    ok: bool
    version: str
    schema_revision: str
    workers: int
    queued: int


class ModalityInfo(_Record):
    """A modality's face: enough to draw a form and show results."""

    name: str
    title: str
    summary: str
    view: str
    formats: list[str]
    media_types: list[str] = Field(description="Of the formats, in their order.")
    default_model: str
    parameters: dict[str, Any] = Field(description="JSON schema of the request's parameters.")
    examples: list[dict[str, Any]] = []


class ModelInfo(_Record):
    """What a person wants to know of a model before using it."""

    name: str
    modality: str
    title: str
    summary: str
    licence: str
    sha256: str
    defaults: dict[str, Any]
    metrics: dict[str, Any] = {}
    base: str = Field("", description="The model that an adapter belongs to.")


class Parent(BaseModel):
    """A job to wait for, and what to take from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str = Field(min_length=1, max_length=64, description="Its id; within a group also its name.")
    parameter: str | None = Field(
        None, max_length=64, description="The parameter that takes what the parent makes; none: only wait."
    )
    item: int = Field(0, ge=0, le=999, description="Which of the parent's artifacts.")


class Submission(BaseModel):
    """A job to be."""

    model_config = ConfigDict(extra="forbid")

    modality: str = Field(max_length=64)
    parameters: dict[str, Any] = {}
    format: str | None = Field(None, max_length=16, description="File format; the modality's first one if left out.")
    priority: int = Field(0, ge=-100, le=100, description="Higher runs earlier.")
    label: str = Field("", max_length=200, description="A note of your own, searchable.")
    run_after: AwareDatetime | None = Field(None, description="Not before this time.")
    deadline: AwareDatetime | None = Field(None, description="It fails if it has not ended by this time.")
    parents: list[Parent] = Field([], max_length=32, description="Jobs to wait for.")
    name: str | None = Field(None, min_length=1, max_length=64, description="What it is called within its group.")
    group: str | None = Field(None, max_length=64, description="Id of the group to add it to.")


class GroupSubmission(BaseModel):
    """Jobs to be, all or none; each may wait for others of the list by their names."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[Submission] = Field(min_length=1, max_length=1000)
    label: str = Field("", max_length=200, description="A note of your own.")


class PoolAction(BaseModel):
    """What to do with a pool."""

    model_config = ConfigDict(extra="forbid")

    action: str = Field(
        max_length=16,
        description="pause: nothing of it is claimed. drain: nothing is submitted to it. resume: as usual again.",
    )
    reason: str = Field("", max_length=200, description="Why, for whoever wonders.")


class ProgressRecord(_Record):
    """``done`` of ``total`` units of ``stage`` (load, encode, step, decode, write)."""

    stage: str
    done: int
    total: int


class JobError(_Record):
    """Why a job did not succeed: a short kind (``degenerate``, ``storage``, ``crash``, ...) and one line for people."""

    kind: str
    message: str


class ArtifactRecord(_Record):
    """A result file."""

    id: str
    job_id: str
    name: str
    media_type: str
    size: int
    sha256: str
    items: list[int]
    metadata: dict[str, Any]


class UploadRecord(_Record):
    """A file that a person gave, for jobs to take in. One that no job uses is deleted after a day."""

    id: str
    media_type: str = Field(description="By its first bytes.")
    size: int
    sha256: str
    created_at: datetime


class JobRecord(_Record):
    """A job as its owner sees it. Times are UTC."""

    id: str
    user: str
    modality: str
    model: str
    parameters: dict[str, Any]
    format: str
    label: str
    priority: int
    state: JobState
    cancel_requested: bool
    progress: ProgressRecord | None
    position: int | None = Field(description="Jobs that will start before this one, while it is queued.")
    attempts: int
    epoch: int
    worker: str | None = Field(description="Id of the worker that has or had the job.")
    error: JobError | None
    artifacts: list[ArtifactRecord]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    pool: str = ""
    run_after: datetime | None = Field(None, description="It waits until then; for another try, too.")
    deadline: datetime | None = None
    group: str | None = None
    name: str | None = Field(None, description="What it is called within its group.")
    parents: list[Parent] = []
    children: list[str] = Field([], description="Jobs that wait, or waited, for it; left out of lists of jobs.")
    retry_of: str | None = Field(None, description="The job that this one is another try of.")
    retries: int = Field(0, description="How often it was tried again by itself.")
    gpu_seconds: float = Field(0.0, description="Seconds of a device that it has taken, in all attempts.")
    joules: float | None = Field(None, description="Energy that its attempts have taken; null if no device tells.")


class StageRecord(_Record):
    """One stage of an attempt: when it was, and ``done`` of ``total`` units at its end."""

    name: str
    began_at: datetime
    ended_at: datetime | None
    done: int
    total: int


class AttemptRecord(_Record):
    """One holding of a job by a worker."""

    epoch: int
    owner: str = Field(description="Id of the engine process.")
    worker: str | None
    claimed_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    state: JobState | None = Field(description="What the job became at its end; null while it goes on.")
    error_kind: str | None
    message: str
    stages: list[StageRecord]
    gpu_seconds: float = Field(0.0, description="Seconds of a device that it has taken.")
    joules: float | None = Field(None, description="Energy that it has taken; null if the device does not tell.")


class GroupRecord(_Record):
    """Jobs that were submitted together."""

    id: str
    label: str
    created_at: datetime
    states: dict[JobState, int] = Field(description="How many of its jobs are in which state.")
    jobs: list[JobRecord] = Field([], description="In the order of their submission; left out of lists of groups.")


class PoolRecord(_Record):
    """A pool of workers."""

    name: str
    state: str = Field(description="open, paused, draining or blocked")
    reason: str
    changed_at: datetime
    states: dict[JobState, int] = Field(description="How many of its jobs are in which state before an end.")


class EventRecord(_Record):
    """Something that happened to a job. ``number`` rises within a job; ask for events after the last one seen."""

    number: int
    job_id: str
    at: datetime
    kind: str = Field(description="state, progress or preview")
    state: JobState
    progress: ProgressRecord | None = None
    message: str = ""


class UserRecord(_Record):
    """Whose API key it is."""

    name: str
    operator: bool = Field(description="May pause, drain and resume pools.")


class WorkerRecord(_Record):
    """A worker: one machine's supervisor and its engine processes."""

    id: str
    host: str
    device: str
    pool: str
    state: str = Field(description="starting, idle, busy, draining or lost")
    jobs: list[str]
    models: list[str]
    started_at: datetime
    seen_at: datetime
    finished_jobs: int
    memory_mb: float | None = None
    cpu_percent: float | None = None
    gpu_percent: float | None = None
