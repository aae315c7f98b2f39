"""The job store: rows in SQLite or PostgreSQL, the one truth about every job."""

from __future__ import annotations

from perrin_orchestration.store.jobs import JobStore
from perrin_orchestration.store.values import (
    Artifact,
    CancelRequested,
    Event,
    Job,
    LeaseRef,
    Move,
    NewArtifact,
    NewJob,
    StaleLease,
    User,
    Worker,
)

__all__ = [
    "Artifact",
    "CancelRequested",
    "Event",
    "Job",
    "JobStore",
    "LeaseRef",
    "Move",
    "NewArtifact",
    "NewJob",
    "StaleLease",
    "User",
    "Worker",
]
