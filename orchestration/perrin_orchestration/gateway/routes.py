"""The paths of `perrin.wire`. Endpoints are plain functions: the framework runs them in its threads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from perrin import __version__, plugins
from perrin.errors import InvalidInput, NotAllowed, NotFound
from perrin.wire import (
    AttemptRecord,
    GroupRecord,
    GroupSubmission,
    Health,
    JobRecord,
    JobState,
    ModalityInfo,
    ModelInfo,
    PoolAction,
    PoolRecord,
    Submission,
    UserRecord,
    WorkerRecord,
)
from perrin_orchestration.gateway.context import Context, Ctx, Me
from perrin_orchestration.gateway.records import (
    attempt_record,
    group_record,
    job_record,
    modality_info,
    model_info,
    pool_record,
    worker_record,
)
from perrin_orchestration.gateway.stream import stream_events
from perrin_orchestration.gateway.submission import new_group, new_job
from perrin_orchestration.store import Job

__all__ = ["router"]

router = APIRouter(prefix="/v1")


def _record(context: Context, job: Job) -> JobRecord:
    return job_record(job, context.store.about_one(job))


def _records(context: Context, jobs: Sequence[Job]) -> list[JobRecord]:
    about = context.store.about(jobs)
    return [job_record(job, about[job.id]) for job in jobs]


def _body(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For the description of the API: this is what the answer is made of."""
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


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
    dead: bool = False,
) -> list[JobRecord]:
    """A page of jobs, newest first; or of the dead letters among them."""
    for field, value in (("modality", modality), ("search", search), ("before", before)):
        if value is not None and "\0" in value:
            raise InvalidInput(field, value, "text without null characters")
    if before is not None:
        context.store.get(before, me.id)
    if dead:
        if state is not None or modality is not None or search is not None:
            raise InvalidInput("dead", dead, "no state, modality or search beside it")
        return _records(context, context.store.dead(me.id, before=before, limit=limit))
    jobs = context.store.list(me.id, state=state, modality=modality, search=search, before=before, limit=limit)
    return _records(context, jobs)


@router.get("/jobs/{job_id}")
def get_job(context: Ctx, me: Me, job_id: str) -> JobRecord:
    """A job."""
    job = _mine(context, me, job_id)
    return _record(context, job).model_copy(update={"children": list(context.store.children(job.id))})


@router.post("/jobs/{job_id}/cancel")
def cancel(context: Ctx, me: Me, job_id: str) -> JobRecord:
    """Stop a job: at once while it is queued, between two steps while it runs."""
    return _record(context, context.store.cancel(_mine(context, me, job_id).id, me.id))


@router.post("/jobs/{job_id}/retry", status_code=201)
def retry(context: Ctx, me: Me, job_id: str, response: Response) -> JobRecord:
    """Try a job that came to nothing once more, as a new job, with those that ended for its sake."""
    job = context.store.retry(_mine(context, me, job_id).id, me.id)
    context.hints.wake()
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return _record(context, job)


@router.get("/jobs/{job_id}/history")
def history(context: Ctx, me: Me, job_id: str) -> list[AttemptRecord]:
    """The attempts at a job: owners, stages with their times, errors."""
    return [attempt_record(attempt) for attempt in context.store.history(_mine(context, me, job_id).id)]


@router.get("/jobs/{job_id}/events", responses=_body("text/event-stream"), response_class=Response)
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


@router.get("/jobs/{job_id}/preview", responses=_body("image/png"), response_class=Response)
def preview(context: Ctx, me: Me, job_id: str) -> Response:
    """The latest preview of a job that is sampling."""
    job = _mine(context, me, job_id)
    return Response(
        context.artifacts.preview(job.id, job.epoch), media_type="image/png", headers={"cache-control": "no-store"}
    )


@router.get("/artifacts/{artifact_id}", responses=_body("*/*"), response_class=Response)
def artifact(context: Ctx, me: Me, artifact_id: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The bytes of a result, exactly those that were committed; or of an upload."""
    wanted = _clean(artifact_id)
    found = context.store.files([wanted], me.id).get(wanted)
    if found is None:
        raise NotFound(f"there is no artifact {wanted[:40]!r}")
    etag = f'"{found.sha256}"'
    headers = {"etag": etag, "cache-control": "private, max-age=31536000, immutable"}
    if if_none_match and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    headers |= {
        "content-disposition": _disposition(found.name),
        "x-content-type-options": "nosniff",
    }
    headers["content-security-policy"] = "sandbox; default-src 'none'"
    return Response(context.artifacts.read(found.sha256), media_type=found.media_type, headers=headers)


@router.post("/groups", status_code=201)
def submit_group(
    context: Ctx,
    me: Me,
    submission: GroupSubmission,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> GroupRecord:
    """Submit jobs together. When this answers, all of them are on disk."""
    group, jobs, new = context.store.submit_group(new_group(context, me, submission, idempotency_key))
    context.hints.wake()
    response.status_code = 201 if new else 200
    response.headers["location"] = f"/v1/groups/{group.id}"
    return group_record(group, _records(context, jobs))


@router.get("/groups")
def list_groups(context: Ctx, me: Me, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[GroupRecord]:
    """Groups, newest first, without their jobs."""
    return [group_record(group) for group in context.store.groups(me.id, limit)]


@router.get("/groups/{group_id}")
def get_group(context: Ctx, me: Me, group_id: str) -> GroupRecord:
    """A group with its jobs."""
    group, jobs = context.store.group(_clean(group_id), me.id)
    return group_record(group, _records(context, jobs))


@router.post("/groups/{group_id}/cancel")
def cancel_group(context: Ctx, me: Me, group_id: str) -> GroupRecord:
    """Stop every job of a group that has not ended."""
    context.store.cancel_group(_clean(group_id), me.id)
    return get_group(context, me, group_id)


@router.get("/pools")
def pools(context: Ctx, _me: Me) -> list[PoolRecord]:
    """The pools, and how much is in them."""
    return [pool_record(pool) for pool in context.store.pools.all()]


@router.post("/pools/{name}")
def change_pool(context: Ctx, me: Me, name: str, change: PoolAction) -> PoolRecord:
    """Pause, drain or resume a pool. Everybody's jobs feel it, so only an operator may."""
    if not me.operator:
        raise NotAllowed("pools are for operators: use the key that `perrin up` wrote")
    pool = context.store.pools.set(_clean(name), change.action, change.reason)
    context.hints.wake()
    return pool_record(pool)


@router.get("/me")
def whoami(me: Me) -> UserRecord:
    """Whose API key this is."""
    return UserRecord(name=me.name, operator=me.operator)


@router.get("/workers")
def workers(context: Ctx, me: Me) -> list[WorkerRecord]:
    """Who works."""
    return [worker_record(worker) for worker in context.store.workers.all(me.id)]


@router.get("/metrics", responses=_body("text/plain"), response_class=Response)
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
