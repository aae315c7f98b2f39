"""Rows to values and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import RowMapping

from perrin.wire import JobState
from perrin_orchestration.store.database import rows as select
from perrin_orchestration.store.values import (
    Artifact,
    Edge,
    Event,
    Group,
    Job,
    LeaseRef,
    NewArtifact,
    NewJob,
    Pool,
    Worker,
)

__all__ = [
    "AGEING_SECONDS",
    "artifact",
    "artifact_values",
    "edge_values",
    "event",
    "event_of",
    "first_event",
    "group",
    "job",
    "job_values",
    "pattern",
    "pool",
    "ref",
    "select",
    "to_json",
    "worker",
]

AGEING_SECONDS = 60.0
"""A job gains one point of priority for each of these that it has waited longer than another."""

_JOB_FIELDS = tuple(name for name in Job.__slots__ if name not in ("parameters", "state", "cancel_requested", "user"))


def job(row: RowMapping) -> Job:
    """A row of ``jobs``, with its user's name where the statement joined it."""
    values: dict[str, Any] = {name: row[name] for name in _JOB_FIELDS}
    values["parameters"] = json.loads(row["parameters"])
    values["state"] = JobState(row["state"])
    values["cancel_requested"] = bool(row["cancel_requested"])
    values["user"] = row.get("user", "")
    return Job(**values)


def artifact(row: RowMapping) -> Artifact:
    """A row of ``artifacts``."""
    return Artifact(
        id=row["id"],
        job_id=row["job_id"],
        name=row["name"],
        media_type=row["media_type"],
        size=row["size"],
        sha256=row["sha256"],
        items=tuple(json.loads(row["items"])),
        metadata=json.loads(row["details"]),
    )


def event(row: RowMapping) -> Event:
    """A row of ``events``."""
    return Event(**{**row, "state": JobState(row["state"])})


def group(row: RowMapping, states: Mapping[str, int]) -> Group:
    """A row of ``groups``."""
    return Group(row["id"], row["label"], row["created_at"], states)


def pool(row: RowMapping, states: Mapping[str, int]) -> Pool:
    """A row of ``pools``."""
    return Pool(row["name"], row["state"], row["reason"], row["changed_at"], states)


def worker(row: RowMapping, jobs: tuple[str, ...]) -> Worker:
    """A row of ``workers``."""
    values = dict(row)
    values |= {"models": tuple(json.loads(row["models"])), "drain": bool(row["drain"]), "jobs": jobs}
    return Worker(**values)


def ref(lease: LeaseRef) -> dict[str, Any]:
    """The three values that every write of a worker names."""
    return {"id": lease.id, "epoch": lease.epoch, "owner": lease.owner}


def event_of(row: RowMapping, kind: str, message: str, now: float) -> dict[str, Any]:
    """The event that tells of a change of the job in ``row``, with the number that the change has given it."""
    return {
        "job_id": row["id"],
        "number": row["event_count"],
        "at": now,
        "kind": kind,
        "state": row["state"],
        "stage": row["stage"],
        "done": row["done"],
        "total": row["total"],
        "message": message,
        "epoch": row["epoch"],
        "owner": row["owner"],
        "worker": row["worker"],
        "error_kind": row["error_kind"],
    }


def pattern(text: str) -> str:
    """A LIKE pattern for text that contains ``text``; ``!`` escapes."""
    escaped = text.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


def job_values(new: NewJob, now: float) -> dict[str, Any]:
    """What is stored of a job that is submitted at ``now``, under a fresh id.

    Its rank is the moment from which it may run, moved forward by `AGEING_SECONDS` a point of priority. Ranks do not
    change, and yet a job gains a point on those that come after it with every `AGEING_SECONDS` that it waits.
    """
    words = [new.label, new.model, *(v for v in new.parameters.values() if isinstance(v, str))]
    waits = bool(new.parents) or new.run_after > now
    return {
        "id": uuid.uuid4().hex,
        "user_id": new.user_id,
        "modality": new.modality,
        "model": new.model,
        "parameters": to_json(new.parameters),
        "format": new.format,
        "label": new.label,
        "search": "\n".join(words).lower(),
        "idempotency_key": new.idempotency_key,
        "request_sha256": new.request_sha256,
        "group_id": new.group_id,
        "name": new.name,
        "retry_of": None,
        "parents_left": len(new.parents),
        "pool": new.pool,
        "priority": new.priority,
        "run_after": new.run_after,
        "deadline": new.deadline,
        "rank": max(now, new.run_after) - AGEING_SECONDS * new.priority,
        "state": "waiting" if waits else "queued",
        "now": now,
    }


def first_event(values: Mapping[str, Any]) -> dict[str, Any]:
    """The event that begins the history of a job with these `job_values`."""
    event = {"job_id": values["id"], "number": 1, "at": values["now"], "kind": "state", "state": values["state"]}
    event |= {"stage": None, "done": 0, "total": 0, "epoch": 0, "owner": None, "worker": None, "error_kind": None}
    return event | {"message": "" if values["retry_of"] is None else f"another try of job {values['retry_of']}"}


def edge_values(child_id: str, number: int, parent_id: str, edge: Edge) -> dict[str, Any]:
    """What is stored of a dependency."""
    return {
        "child_id": child_id,
        "number": number,
        "parent_id": parent_id,
        "parameter": edge.parameter,
        "item": edge.item,
    }


def to_json(values: Mapping[str, Any]) -> str:
    """JSON text, as the store keeps it."""
    return json.dumps(dict(values), ensure_ascii=False, allow_nan=False)


def artifact_values(job_id: str, number: int, item: NewArtifact, now: float) -> dict[str, Any]:
    """What is stored of a job's result file."""
    return {
        "id": uuid.uuid4().hex,
        "job_id": job_id,
        "number": number,
        "name": item.name,
        "media_type": item.media_type,
        "size": item.size,
        "sha256": item.sha256,
        "items": json.dumps(list(item.items)),
        "details": json.dumps(dict(item.metadata), ensure_ascii=False, allow_nan=False),
        "now": now,
    }
