"""The paths of `perrin.wire`. Endpoints are plain functions: the framework runs them in its threads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from perrin import __version__, plugins
from perrin.errors import InvalidInput
from perrin.wire import Health, JobRecord, JobState, ModalityInfo, ModelInfo, Submission, WorkerRecord
from perrin_orchestration.gateway.context import Context, Ctx, Me
from perrin_orchestration.gateway.records import job_record, modality_info, model_info, worker_record
from perrin_orchestration.gateway.stream import stream_events
from perrin_orchestration.gateway.submission import new_job
from perrin_orchestration.store import Job

__all__ = ["router"]

router = APIRouter(prefix="/v1")


def _record(context: Context, job: Job) -> JobRecord:
    done = context.store.artifacts([job.id])[job.id] if job.state is JobState.SUCCEEDED else ()
    return job_record(job, done, context.store.position(job))


@router.get("/health")
def health(context: Ctx) -> Health:
    """Whether the gateway and its store answer."""
    return Health(
        ok=True,
        version=__version__,
        schema_revision=context.revision,
        workers=context.store.workers.live(),
        queued=context.store.queued(),
    )


@router.get("/modalities")
def modalities(_me: Me) -> list[ModalityInfo]:
    """What can be made."""
    return [modality_info(face) for face in plugins.modalities().values()]


@router.get("/models")
def models(context: Ctx, _me: Me) -> list[ModelInfo]:
    """What it can be made with."""
    return [model_info(card) for card in context.catalogue.all()]


@router.post("/jobs", status_code=201)
def submit(
    context: Ctx,
    me: Me,
    submission: Submission,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobRecord:
    """Submit a job. When this answers, the job is on disk."""
    job, new = context.store.submit(new_job(context, me, submission, idempotency_key))
    context.hints.wake()
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return _record(context, job)


@router.get("/jobs")
def list_jobs(
    context: Ctx,
    me: Me,
    state: JobState | None = None,
    modality: Annotated[str | None, Query(max_length=64)] = None,
    search: Annotated[str | None, Query(max_length=200)] = None,
    before: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[JobRecord]:
    """A page of jobs, newest first."""
    for field, value in (("modality", modality), ("search", search), ("before", before)):
        if value is not None and "\0" in value:
            raise InvalidInput(field, value, "text without null characters")
    if before is not None:
        context.store.get(before, me.id)
    jobs = context.store.list(me.id, state=state, modality=modality, search=search, before=before, limit=limit)
    artifacts = context.store.artifacts(job.id for job in jobs)
    return [job_record(job, artifacts[job.id], context.store.position(job)) for job in jobs]


@router.get("/jobs/{job_id}")
def get_job(context: Ctx, me: Me, job_id: str) -> JobRecord:
    """A job."""
    return _record(context, _mine(context, me, job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel(context: Ctx, me: Me, job_id: str) -> JobRecord:
    """Stop a job: at once while it is queued, between two steps while it runs."""
    return _record(context, context.store.cancel(_mine(context, me, job_id).id, me.id))


@router.get("/jobs/{job_id}/events")
def events(
    context: Ctx,
    me: Me,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """What happens to a job, until it has ended."""
    if last_event_id:
        if not re.fullmatch(r"[0-9]{1,9}", last_event_id):
            raise InvalidInput("Last-Event-ID", last_event_id, "the number of an event")
        after = max(after, int(last_event_id))
    job = _mine(context, me, job_id)
    stream: AsyncIterator[str] = stream_events(context.store, job.id, after)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/jobs/{job_id}/preview")
def preview(context: Ctx, me: Me, job_id: str) -> Response:
    """The latest preview of a job that is sampling."""
    job = _mine(context, me, job_id)
    return Response(
        context.artifacts.preview(job.id, job.epoch), media_type="image/png", headers={"cache-control": "no-store"}
    )


@router.get("/artifacts/{artifact_id}")
def artifact(context: Ctx, me: Me, artifact_id: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The bytes of a result, exactly those that were committed."""
    found = context.store.artifact(_clean(artifact_id), me.id)
    etag = f'"{found.sha256}"'
    headers = {"etag": etag, "cache-control": "private, max-age=31536000, immutable"}
    if if_none_match and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    headers |= {
        "content-disposition": _disposition(f"{found.job_id}-{found.name}"),
        "x-content-type-options": "nosniff",
    }
    headers["content-security-policy"] = "sandbox; default-src 'none'"
    return Response(context.artifacts.read(found.sha256), media_type=found.media_type, headers=headers)


@router.get("/workers")
def workers(context: Ctx, me: Me) -> list[WorkerRecord]:
    """Who works."""
    return [worker_record(worker) for worker in context.store.workers.all(me.id)]


@router.get("/metrics")
def metrics(context: Ctx, _me: Me) -> Response:
    """For Prometheus."""
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _clean(identifier: str) -> str:
    """PostgreSQL takes no null characters, and no id of ours has one."""
    return identifier.replace("\0", "")[:64]


def _mine(context: Context, me: Me, job_id: str) -> Job:
    return context.store.get(_clean(job_id), me.id)


def _disposition(name: str) -> str:
    """A name that can neither end the header nor leave the folder it is saved in."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "file"
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(plain)}"
