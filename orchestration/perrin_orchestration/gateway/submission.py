"""A submission becomes a job: everything is checked before anything is stored."""

from __future__ import annotations

import hashlib
import json

from perrin import plugins
from perrin.errors import InvalidInput
from perrin.modality import validate
from perrin.wire import Submission
from perrin_orchestration.gateway.context import Context
from perrin_orchestration.store import NewJob, User

__all__ = ["new_job"]


def new_job(context: Context, user: User, submission: Submission, idempotency_key: str | None) -> NewJob:
    """The job that ``submission`` asks for, with every default written out.

    Raises:
        InvalidInput: names the first field that is wrong, and its range.
        StorageError: the disk is nearly full.
    """
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 200:
        raise InvalidInput("Idempotency-Key", idempotency_key, "1 to 200 characters")
    face = plugins.modality(submission.modality)
    kind = face.format(submission.format) if submission.format is not None else face.formats[0]
    asked = validate(face, submission.parameters)
    card = context.catalogue.card(asked.model or face.default_model, face.name)
    resolved = asked.resolved(card)
    values = resolved.model_dump(mode="json")
    for field, value in [*values.items(), ("label", submission.label)]:
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(field, value, "text without null characters")
    context.artifacts.check_room()
    return NewJob(
        user_id=user.id,
        modality=face.name,
        model=card.name,
        parameters=values,
        format=kind.name,
        pool=face.name,
        label=submission.label,
        priority=submission.priority,
        idempotency_key=idempotency_key,
        request_sha256=_sha256(submission),
    )


def _sha256(submission: Submission) -> str:
    """Of what was asked for, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(submission.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
