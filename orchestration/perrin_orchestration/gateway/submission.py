"""A submission becomes a job: everything is checked before anything is stored."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from perrin import plugins
from perrin.errors import InvalidInput
from perrin.modality import validate
from perrin.wire import GroupSubmission, Submission
from perrin_orchestration.gateway.context import Context
from perrin_orchestration.inputs import check_parent, given_files, with_artifacts
from perrin_orchestration.pools import pool_of
from perrin_orchestration.store import Edge, NewGroup, NewJob, User

__all__ = ["new_group", "new_job"]


def new_job(context: Context, user: User, submission: Submission, idempotency_key: str | None) -> NewJob:
    """The job that ``submission`` asks for, with every default written out.

    Raises:
        InvalidInput: names the first field that is wrong, and its range.
        StorageError: the disk is nearly full.
    """
    _check_key(idempotency_key)
    context.artifacts.check_room()
    return _job(context, user, submission, idempotency_key, _sha256(submission))


def new_group(context: Context, user: User, submission: GroupSubmission, idempotency_key: str | None) -> NewGroup:
    """The group that ``submission`` asks for.

    Raises:
        InvalidInput: names the job and the first field of it that is wrong.
        StorageError: the disk is nearly full.
    """
    _check_key(idempotency_key)
    _check_text(label=submission.label)
    context.artifacts.check_room()
    jobs, siblings = [], {job.name: job for job in submission.jobs if job.name is not None}
    for number, job in enumerate(submission.jobs):
        try:
            if job.group is not None:
                raise InvalidInput("group", job.group, "nothing: these jobs make a group of their own")
            jobs.append(_job(context, user, job, None, "", siblings))
        except InvalidInput as error:
            raise type(error)(f"jobs.{number}.{error.field}", error.got, error.wanted) from None
    return NewGroup(user.id, jobs, submission.label, idempotency_key, _sha256(submission))


def _job(
    context: Context,
    user: User,
    submission: Submission,
    key: str | None,
    sha256: str,
    siblings: Mapping[str, Submission] | None = None,
) -> NewJob:
    face = plugins.modality(submission.modality)
    kind = face.format(submission.format) if submission.format is not None else face.formats[0]
    asked = validate(face, with_artifacts(face, submission))
    asked.check_format(kind)
    card = context.catalogue.card(asked.model or face.default_model, face.name)
    values = asked.resolved(card).model_dump(mode="json")
    _check_text(**values, label=submission.label, name=submission.name, group=submission.group)
    for parent in submission.parents:
        _check_text(parents=parent.job)
        check_parent(context.store, user, face, parent, values, siblings or {})
    inputs = given_files(context.store, user, face, values, {parent.parameter for parent in submission.parents})
    return NewJob(
        user_id=user.id,
        modality=face.name,
        model=card.name,
        parameters=values,
        format=kind.name,
        pool=pool_of(card),
        label=submission.label,
        priority=submission.priority,
        run_after=_seconds(submission.run_after) or 0.0,
        deadline=_deadline(submission),
        idempotency_key=key,
        request_sha256=sha256,
        name=submission.name,
        parents=[Edge(parent.job, parent.parameter, parent.item) for parent in submission.parents],
        group_id=submission.group,
        inputs=inputs,
    )


def _deadline(submission: Submission) -> float | None:
    deadline, now = _seconds(submission.deadline), time.time()
    if deadline is not None and deadline <= max(now, _seconds(submission.run_after) or now):
        raise InvalidInput("deadline", str(submission.deadline), "a time in the future, after run_after")
    return deadline


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _check_key(key: str | None) -> None:
    if key is not None and not 1 <= len(key) <= 200:
        raise InvalidInput("Idempotency-Key", key, "1 to 200 characters")


def _check_text(**values: Any) -> None:
    """PostgreSQL takes no null characters."""
    for field, value in values.items():
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(field, value, "text without null characters")


def _sha256(submission: BaseModel) -> str:
    """Of what was asked for, whatever the order of its fields."""
    asked = submission.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
