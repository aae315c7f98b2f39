"""The job store: rows in SQLite or PostgreSQL, the one truth about every job."""

from __future__ import annotations

from perrin_orchestration.store.claiming import Warmth
from perrin_orchestration.store.jobs import JobStore
from perrin_orchestration.store.values import (
    Account,
    Artifact,
    CancelRequested,
    Done,
    Edge,
    Event,
    GivenFile,
    Group,
    Job,
    LeaseRef,
    Move,
    NewArtifact,
    NewGroup,
    NewJob,
    Pool,
    StaleLease,
    User,
    Worker,
)

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
    "JobStore",
    "LeaseRef",
    "Move",
    "NewArtifact",
    "NewGroup",
    "NewJob",
    "Pool",
    "StaleLease",
    "User",
    "Warmth",
    "Worker",
]
