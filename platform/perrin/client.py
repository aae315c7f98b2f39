"""The Python SDK: a running Perrin platform, from any Python program. Loads no torch.

`Client` finds the platform by itself: from its arguments, else PERRIN_URL and PERRIN_API_KEY, else the file that
``perrin up`` wrote on this machine::

    import perrin

    client = perrin.Client()
    job = client.submit("image", prompt="a red apple", seed=7)
    job.wait(progress=True)                  # a progress bar; JobFailed or JobCancelled if it comes to nothing
    job.save("out/")                         # out/<job>-0.png
    job.save("apple.png")                    # or under a name; apple-0.png, apple-1.png ... for several

Parameters are those of the modality, checked by the platform; whatever is left out is the model's own default::

    client.modalities()[0].parameters        # the JSON schema
    client.submit("image", prompt="pizza", steps=20, guidance=3.0, count=4, label="menu", priority=5)

Jobs outlive this process; take one up again by its id, watch it, look at it, stop it::

    job = client.job("...")
    for event in job.events():               # from the first to the last, across lost connections
        print(event.number, event.state, event.progress)
    job.record.parameters                    # every value used, the seed too: enough to make it again
    job.preview()                            # a small PNG while it is sampling
    job.cancel()
    job.history()                            # attempts, owners, stages with their times, errors
    job.retry()                              # a new job, if this one came to nothing

Where a parameter takes a file, a `pathlib.Path` or bytes are uploaded first, and a result of another job is passed on::

    client.submit("video", image=Path("apple.png"))
    client.submit("video", image=job.artifacts[0])
    client.upload("apple.png").id            # or once, for many jobs

Jobs that belong together, and that take what the others make::

    group = client.submit_group([
        {"modality": "image", "name": "apple", "parameters": {"prompt": "a red apple"}},
        {"modality": "video", "parents": [{"job": "apple", "parameter": "image"}]},
    ])
    group.wait()

Results::

    artifact = job.artifacts[0]
    artifact.bytes()                         # checked against its SHA-256
    artifact.save("apple.png")               # a whole file or none

Errors are those of `perrin.errors`, with the text that the platform gave.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from perrin.errors import InvalidInput, Unreachable
from perrin.handles import Artifact, Group, Job, wire_path
from perrin.inputs import read_file
from perrin.settings import Settings
from perrin.transport import Transport
from perrin.wire import (
    GroupRecord,
    GroupSubmission,
    Health,
    JobRecord,
    JobState,
    ModalityInfo,
    ModelInfo,
    Parent,
    PoolAction,
    PoolRecord,
    Submission,
    UploadRecord,
    UserRecord,
    WorkerRecord,
)

__all__ = ["Artifact", "Client", "Group", "Job"]

T = TypeVar("T", bound=BaseModel)

_JOB = TypeAdapter(JobRecord)
_JOBS = TypeAdapter(list[JobRecord])
_MODALITIES = TypeAdapter(list[ModalityInfo])
_MODELS = TypeAdapter(list[ModelInfo])
_GROUP = TypeAdapter(GroupRecord)
_GROUPS = TypeAdapter(list[GroupRecord])
_POOL = TypeAdapter(PoolRecord)
_POOLS = TypeAdapter(list[PoolRecord])
_USER = TypeAdapter(UserRecord)
_WORKERS = TypeAdapter(list[WorkerRecord])
_UPLOAD = TypeAdapter(UploadRecord)
_HEALTH = TypeAdapter(Health)


class Client:
    """A platform, by the address of its gateway. May be shared between threads; close it, or use it as a context.

    Args:
        url: the gateway's address. Default: PERRIN_URL, else the platform that ``perrin up`` started here.
        api_key: the API key. Default: PERRIN_API_KEY, else that platform's own.
        timeout: seconds to wait for one answer.

    Raises:
        Unreachable: no address is known.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, timeout: float = 30.0) -> None:
        settings = Settings()
        url = url or settings.url
        started = _read_run_file(settings.run_file)
        if url is None and started is None:
            raise Unreachable("no Perrin platform is running here: start one with `perrin up`, or set PERRIN_URL")
        if started is not None and url in (None, started["url"]):
            url = started["url"]
            api_key = api_key or settings.api_key or started.get("api_key")
        assert url is not None
        self._transport = Transport(url, api_key or settings.api_key, timeout)

    @property
    def url(self) -> str:
        """The gateway's address."""
        return self._transport.url

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def submit(
        self,
        modality: str,
        *,
        format: str | None = None,
        priority: int = 0,
        label: str = "",
        run_after: datetime | None = None,
        deadline: datetime | None = None,
        parents: Sequence[Parent | str] = (),
        group: str | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Job:
        """Submit a job.

        Args:
            modality: what to make, such as ``"image"``.
            format: file format of the results; the modality's first one if left out.
            priority: -100 to 100; higher runs earlier among your own jobs.
            label: a note of your own, searchable.
            run_after: not before this time, which names its time zone.
            deadline: it fails if it has not ended by this time.
            parents: jobs to wait for: their ids, or what to take from them as well.
            group: id of a group to add it to.
            idempotency_key: submitting twice under one key makes one job. One is generated if left out, so that a
                submission repeated after a lost connection never makes two.
            parameters: the modality's own. Where one takes a file: its id, an `Artifact`, or a `pathlib.Path` or
                bytes, which are uploaded. Text is never taken for a path.

        Raises:
            InvalidInput: names the parameter and its range.
        """
        _check_finite(parameters)
        parameters = self._with_ids(parameters)
        submission = _made(
            Submission,
            modality=modality,
            parameters=parameters,
            format=format,
            priority=priority,
            label=label,
            run_after=run_after,
            deadline=deadline,
            parents=[Parent(job=parent) if isinstance(parent, str) else parent for parent in parents],
            group=group,
        )
        record = self._transport.read(
            _JOB,
            "POST",
            "/jobs",
            json=submission.model_dump(mode="json"),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return Job(self, record)

    def submit_group(
        self,
        jobs: Sequence[Submission | Mapping[str, Any]],
        *,
        label: str = "",
        idempotency_key: str | None = None,
    ) -> Group:
        """Submit jobs together, all or none; they may wait for each other by name, and take what the others make.

        Args:
            jobs: each a `perrin.wire.Submission`, or its fields.
            label: a note of your own.
            idempotency_key: as with `submit`.

        Raises:
            InvalidInput: names the job, the field and what it may be.
        """
        fields = [job.model_dump() if isinstance(job, Submission) else dict(job) for job in jobs]
        for job in fields:
            _check_finite(job.get("parameters", {}))
            if "parameters" in job:
                job["parameters"] = self._with_ids(job["parameters"])
        submission = _made(GroupSubmission, jobs=fields, label=label)
        record = self._transport.read(
            _GROUP,
            "POST",
            "/groups",
            json=submission.model_dump(mode="json"),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return Group(self, record)

    def upload(self, file: str | Path | bytes) -> UploadRecord:
        """Bring a file to the platform, for jobs to take in; the same bytes again are the same upload.

        Args:
            file: its path, or its bytes.

        Raises:
            InvalidInput: it cannot be read, is empty, or is larger than the platform takes.
        """
        return self._upload("file", file)

    def _upload(self, name: str, file: object) -> UploadRecord:
        kind = {"Content-Type": "application/octet-stream"}
        return self._transport.read(_UPLOAD, "POST", "/uploads", content=read_file(name, file), headers=kind)

    def _with_ids(self, value: Any, name: str = "") -> Any:
        """Files uploaded and results named: ids in their place."""
        if isinstance(value, Path | bytes):
            return self._upload(name, value).id
        if isinstance(value, Artifact | UploadRecord):
            return value.id
        if isinstance(value, Mapping):
            return {key: self._with_ids(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._with_ids(item, f"{name}.{number}") for number, item in enumerate(value)]
        return value

    def group(self, group_id: str) -> Group:
        """The group with this id.

        Raises:
            NotFound: there is none.
        """
        return Group(self, self._transport.read(_GROUP, "GET", wire_path("groups", group_id)))

    def groups(self, limit: int = 50) -> list[Group]:
        """Groups, newest first, their jobs left out until they are asked for with `Group.refresh`."""
        return [
            Group(self, record) for record in self._transport.read(_GROUPS, "GET", "/groups", params={"limit": limit})
        ]

    def job(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            NotFound: there is none.
        """
        return Job(self, self._transport.read(_JOB, "GET", wire_path("jobs", job_id)))

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        modality: str | None = None,
        search: str | None = None,
        before: str | None = None,
        limit: int = 50,
        dead: bool = False,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            state: only those in this state.
            modality: only those of this modality.
            search: only those whose prompt or label holds these words.
            before: only those submitted before the job with this id.
            limit: at most this many.
            dead: only those that came to nothing and were not tried again; with none of state, modality and search.
        """
        wanted: dict[str, Any] = {"state": state, "modality": modality, "search": search or None, "before": before}
        wanted |= {"limit": limit, "dead": True if dead else None}
        return [Job(self, record) for record in self._transport.read(_JOBS, "GET", "/jobs", params=wanted)]

    def cancel(self, job_id: str) -> Job:
        """Ask for a job to be stopped.

        Raises:
            Conflict: it has ended already.
        """
        return Job(self, self._transport.read(_JOB, "POST", wire_path("jobs", job_id) + "/cancel"))

    def retry(self, job_id: str) -> Job:
        """Try a job that came to nothing once more; the new job.

        Raises:
            Conflict: it has not come to nothing, or was tried again already.
        """
        return Job(self, self._transport.read(_JOB, "POST", wire_path("jobs", job_id) + "/retry"))

    def pools(self) -> list[PoolRecord]:
        """The pools, and how much is in them."""
        return self._transport.read(_POOLS, "GET", "/pools")

    def change_pool(self, name: str, action: str, reason: str = "") -> PoolRecord:
        """Pause, drain or resume a pool; for operators.

        Args:
            name: the pool.
            action: ``pause``: nothing of it is claimed. ``drain``: nothing is submitted to it. ``resume``: as usual.
            reason: why, for whoever wonders.

        Raises:
            NotAllowed: you are no operator.
            Conflict: it is so already.
        """
        change = _made(PoolAction, action=action, reason=reason)
        return self._transport.read(_POOL, "POST", wire_path("pools", name), json=change.model_dump())

    def me(self) -> UserRecord:
        """Whose API key this is."""
        return self._transport.read(_USER, "GET", "/me")

    def modalities(self) -> list[ModalityInfo]:
        """What the platform can make."""
        return self._transport.read(_MODALITIES, "GET", "/modalities")

    def models(self) -> list[ModelInfo]:
        """The models the platform has."""
        return self._transport.read(_MODELS, "GET", "/models")

    def workers(self) -> list[WorkerRecord]:
        """The platform's workers."""
        return self._transport.read(_WORKERS, "GET", "/workers")

    def health(self) -> Health:
        """The gateway's own state; wants no API key."""
        return self._transport.read(_HEALTH, "GET", "/health")


def _check_finite(parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(name, value, "a finite number")


def _made(kind: type[T], **fields: Any) -> T:
    """A record of the wire, or the first field that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInput(".".join(str(part) for part in first["loc"]), first["input"], first["msg"].lower()) from None


def _read_run_file(path: Path) -> dict[str, Any] | None:
    """What ``perrin up`` wrote, or None where no platform was started."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("url"), str) else None
