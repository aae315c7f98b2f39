"""The files that jobs take in: checked when a job is submitted, read when it begins, each time it does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from perrin import plugins
from perrin.errors import InvalidInput, PerrinError
from perrin.inputs import InputFile, check_type, declares, put, slots, takes
from perrin.modality import Modality
from perrin.wire import Parent, Submission
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.artifacts.place import Tell, nobody
from perrin_orchestration.store import Job, JobStore, User

__all__ = ["check_parent", "given_files", "read_inputs", "with_artifacts"]

SOME_ARTIFACT = "0" * 32
"""Stands for an artifact that its parent has still to make, while parameters are checked."""


def with_artifacts(face: Modality, submission: Submission) -> dict[str, Any]:
    """The parameters, with something in the place of every artifact that a parent is to make.

    Raises:
        InvalidInput: a parent is to fill a place that takes no file, or that is filled already.
    """
    values = dict(submission.parameters)
    for parent in submission.parents:
        name = parent.parameter
        if name is None:
            continue
        if takes(face.input_schema, name, values) is None:
            known = ", ".join(declares(face.input_schema))
            wanted = f"a parameter of {face.name} that takes a file: " + (known or "it has none")
            raise InvalidInput("parents.parameter", name, wanted)
        for slot in slots(face.input_schema, values):
            if slot.path == name:
                raise InvalidInput(name, slot.value, f"nothing: it takes what job {parent.job} makes")
        values = put(values, name, SOME_ARTIFACT)
    return values


def check_parent(
    store: JobStore,
    user: User,
    face: Modality,
    parent: Parent,
    values: Mapping[str, Any],
    siblings: Mapping[str, Submission],
) -> None:
    """Make sure that what a parent makes is of a type that the child takes.

    Args:
        store: where a parent is that is no sibling; that there is none is said elsewhere.
        user: whose jobs they are.
        face: the child's modality.
        parent: the parent, and the place that it fills.
        values: the child's parameters, with something in that place.
        siblings: jobs of the same group, by name.

    Raises:
        InvalidInput: it is not; names the place and what it takes.
    """
    slot = next((slot for slot in slots(face.input_schema, values) if slot.path == parent.parameter), None)
    if slot is None:
        return
    sibling = siblings.get(parent.job)
    try:
        made = sibling or store.get(parent.job, user.id)
        other = plugins.modality(made.modality)
        kind = other.formats[0] if made.format is None else other.format(made.format)
    except PerrinError:  # there is no such parent, or its own submission is wrong: then that is what is said
        return
    check_type(slot.path, slot.accepts, kind.media_type, f"what job {parent.job} makes")


def given_files(
    store: JobStore, user: User, face: Modality, values: Mapping[str, Any], fed: Collection[str | None]
) -> dict[str, str]:
    """Ids of the files that a request takes in, by their places, but for those that parents make.

    Raises:
        InvalidInput: one is none of this user's, or of another type than its place takes.
    """
    given = [slot for slot in slots(face.input_schema, values) if slot.path not in fed] if face.takes_files else []
    files = store.files({slot.value for slot in given}, user.id)
    for slot in given:
        if slot.value not in files:
            raise InvalidInput(slot.path, slot.value, "the id of one of your artifacts or uploads")
        check_type(slot.path, slot.accepts, files[slot.value].media_type, slot.value)
    return {slot.path: slot.value for slot in given}


def read_inputs(job: Job, store: JobStore, artifacts: ArtifactStore, tell: Tell = nobody) -> dict[str, InputFile]:
    """The files that a job takes in, as they are now, by their places; ``tell`` is called while they come.

    Raises:
        InvalidInput: one is gone, or of another type than its place takes.
        StorageError: one was changed, or cannot be read now.
    """
    face = plugins.modality(job.modality)
    if not face.takes_files:
        return {}
    wanted = slots(face.input_schema, job.parameters)
    files = store.files({slot.value for slot in wanted}, job.user_id)
    for slot in wanted:
        if slot.value not in files:
            raise InvalidInput(slot.path, slot.value, "a file that is still there: this one was deleted")
        check_type(slot.path, slot.accepts, files[slot.value].media_type, slot.value)
    data = {file.sha256: artifacts.read(file.sha256, tell) for file in files.values()}
    return {
        slot.path: InputFile(file.media_type, data[file.sha256], file.sha256)
        for slot in wanted
        for file in [files[slot.value]]
    }
