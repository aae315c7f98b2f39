"""Values of the store as records of the wire."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from perrin.modality import Modality
from perrin.models import ModelCard
from perrin.wire import (
    ArtifactRecord,
    AttemptRecord,
    EventRecord,
    GroupRecord,
    JobError,
    JobRecord,
    JobState,
    ModalityInfo,
    ModelInfo,
    Parent,
    PoolRecord,
    ProgressRecord,
    StageRecord,
    UploadRecord,
    WorkerRecord,
)
from perrin_orchestration.store import Artifact, Event, Group, Job, Pool, Worker
from perrin_orchestration.store.history import Attempt
from perrin_orchestration.store.keeping import Upload
from perrin_orchestration.store.reading import About

__all__ = [
    "artifact_record",
    "attempt_record",
    "event_record",
    "group_record",
    "job_record",
    "modality_info",
    "model_info",
    "pool_record",
    "upload_record",
    "worker_record",
]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)


def _progress(stage: str | None, done: int, total: int) -> ProgressRecord | None:
    return None if stage is None else ProgressRecord(stage=stage, done=done, total=total)


def artifact_record(artifact: Artifact) -> ArtifactRecord:
    """A result file."""
    return ArtifactRecord(
        id=artifact.id,
        job_id=artifact.job_id,
        name=artifact.name,
        media_type=artifact.media_type,
        size=artifact.size,
        sha256=artifact.sha256,
        items=list(artifact.items),
        metadata=dict(artifact.metadata),
    )


def job_record(job: Job, about: About) -> JobRecord:
    """A job, for its owner."""
    error = JobError(kind=job.error_kind, message=job.error_message or "") if job.error_kind else None
    return JobRecord(
        id=job.id,
        user=job.user,
        modality=job.modality,
        model=job.model,
        parameters=dict(job.parameters),
        format=job.format,
        label=job.label,
        priority=job.priority,
        state=job.state,
        cancel_requested=job.cancel_requested,
        progress=_progress(job.stage, job.done, job.total),
        position=about.position,
        attempts=job.attempts,
        epoch=job.epoch,
        worker=job.worker,
        error=error,
        artifacts=[artifact_record(artifact) for artifact in about.artifacts],
        created_at=_time(job.created_at),
        started_at=_maybe(job.started_at),
        finished_at=_maybe(job.finished_at),
        pool=job.pool,
        run_after=_maybe(job.run_after or None),
        deadline=_maybe(job.deadline),
        group=job.group_id,
        name=job.name,
        parents=[Parent(job=edge.parent, parameter=edge.parameter, item=edge.item) for edge in about.parents],
        retry_of=job.retry_of,
        retries=job.retries,
        gpu_seconds=round(job.gpu_seconds, 3),
        joules=None if job.joules is None else round(job.joules, 3),
    )


def attempt_record(attempt: Attempt) -> AttemptRecord:
    """One attempt at a job."""
    return AttemptRecord(
        epoch=attempt.epoch,
        owner=attempt.owner,
        worker=attempt.worker,
        claimed_at=_time(attempt.claimed_at),
        started_at=_maybe(attempt.started_at),
        ended_at=_maybe(attempt.ended_at),
        state=None if attempt.state is None else JobState(attempt.state),
        error_kind=attempt.error_kind,
        message=attempt.message,
        gpu_seconds=round(attempt.gpu_seconds, 3),
        joules=None if attempt.joules is None else round(attempt.joules, 3),
        stages=[
            StageRecord(
                name=stage.name,
                began_at=_time(stage.began_at),
                ended_at=_maybe(stage.ended_at),
                done=stage.done,
                total=stage.total,
            )
            for stage in attempt.stages
        ],
    )


def group_record(group: Group, jobs: Iterable[JobRecord] = ()) -> GroupRecord:
    """A group, with its jobs or without."""
    return GroupRecord(
        id=group.id,
        label=group.label,
        created_at=_time(group.created_at),
        states={JobState(state): count for state, count in group.states.items()},
        jobs=list(jobs),
    )


def pool_record(pool: Pool) -> PoolRecord:
    """A pool."""
    return PoolRecord(
        name=pool.name,
        state=pool.state,
        reason=pool.reason,
        changed_at=_time(pool.changed_at),
        states={JobState(state): count for state, count in pool.states.items()},
    )


def upload_record(upload: Upload) -> UploadRecord:
    """A file that somebody gave."""
    return UploadRecord(
        id=upload.id,
        media_type=upload.media_type,
        size=upload.size,
        sha256=upload.sha256,
        created_at=_time(upload.created_at),
    )


def event_record(event: Event) -> EventRecord:
    """Something that happened to a job."""
    return EventRecord(
        number=event.number,
        job_id=event.job_id,
        at=_time(event.at),
        kind=event.kind,
        state=event.state,
        progress=_progress(event.stage, event.done, event.total),
        message=event.message,
    )


def worker_record(worker: Worker) -> WorkerRecord:
    """A worker."""
    return WorkerRecord(
        id=worker.id,
        host=worker.host,
        device=worker.device,
        pool=worker.pool,
        state=worker.state,
        jobs=list(worker.jobs),
        models=list(worker.models),
        started_at=_time(worker.started_at),
        seen_at=_time(worker.seen_at),
        finished_jobs=worker.finished_jobs,
        memory_mb=worker.memory_mb,
        cpu_percent=worker.cpu_percent,
        gpu_percent=worker.gpu_percent,
    )


def modality_info(face: Modality) -> ModalityInfo:
    """A modality's face."""
    return ModalityInfo(
        name=face.name,
        title=face.title,
        summary=face.summary,
        view=face.view.value,
        formats=[kind.name for kind in face.formats],
        media_types=[kind.media_type for kind in face.formats],
        default_model=face.default_model,
        parameters=face.schema(),
        examples=[dict(example) for example in face.examples],
    )


def model_info(card: ModelCard) -> ModelInfo:
    """A model, from its card."""
    plain = json.loads(card.model_dump_json(include={"metrics"}))
    return ModelInfo(
        name=card.name,
        modality=card.modality,
        title=card.title,
        summary=card.summary,
        licence=card.licence,
        sha256=card.sha256,
        defaults=card.preferred,
        metrics=plain["metrics"],
        base=card.base,
    )
