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

Results::

    artifact = job.artifacts[0]
    artifact.bytes()                         # checked against its SHA-256
    artifact.save("apple.png")               # a whole file or none

Errors are those of `perrin.errors`, with the text that the platform gave.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from perrin.errors import InvalidInput, JobCancelled, JobFailed, NotFound, StorageError, Unreachable
from perrin.files import check_target, check_writable, numbered, write_files
from perrin.settings import Settings
from perrin.transport import Transport
from perrin.wire import (
    ArtifactRecord,
    EventRecord,
    Health,
    JobRecord,
    JobState,
    ModalityInfo,
    ModelInfo,
    Submission,
    WorkerRecord,
)

__all__ = ["Artifact", "Client", "Job"]

_JOB = TypeAdapter(JobRecord)
_JOBS = TypeAdapter(list[JobRecord])
_MODALITIES = TypeAdapter(list[ModalityInfo])
_MODELS = TypeAdapter(list[ModelInfo])
_WORKERS = TypeAdapter(list[WorkerRecord])
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
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Job:
        """Submit a job.

        Args:
            modality: what to make, such as ``"image"``.
            format: file format of the results; the modality's first one if left out.
            priority: -100 to 100; higher runs earlier.
            label: a note of your own, searchable.
            idempotency_key: submitting twice under one key makes one job. One is generated if left out, so that a
                submission repeated after a lost connection never makes two.
            parameters: the modality's own.

        Raises:
            InvalidInput: names the parameter and its range.
        """
        for name, value in parameters.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput(name, value, "a finite number")
        try:
            submission = Submission(
                modality=modality, parameters=parameters, format=format, priority=priority, label=label
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InvalidInput(str(first["loc"][0]), first["input"], first["msg"].lower()) from None
        record = self._transport.read(
            _JOB,
            "POST",
            "/jobs",
            json=submission.model_dump(mode="json"),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return Job(self, record)

    def job(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            NotFound: there is none.
        """
        return Job(self, self._transport.read(_JOB, "GET", _path("jobs", job_id)))

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        modality: str | None = None,
        search: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            state: only those in this state.
            modality: only those of this modality.
            search: only those whose prompt or label holds these words.
            before: only those submitted before the job with this id.
            limit: at most this many.
        """
        wanted = {"state": state, "modality": modality, "search": search or None, "before": before, "limit": limit}
        return [Job(self, record) for record in self._transport.read(_JOBS, "GET", "/jobs", params=wanted)]

    def cancel(self, job_id: str) -> Job:
        """Ask for a job to be stopped.

        Raises:
            Conflict: it has ended already.
        """
        return Job(self, self._transport.read(_JOB, "POST", _path("jobs", job_id) + "/cancel"))

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


class Job:
    """A job on the platform. A handle: nothing happens to the job when it is dropped."""

    def __init__(self, client: Client, record: JobRecord) -> None:
        self._client = client
        self._record = record

    @property
    def id(self) -> str:
        """The id to find the job by, from anywhere."""
        return self._record.id

    @property
    def record(self) -> JobRecord:
        """Everything known of the job when it was last asked for; `refresh` asks again."""
        return self._record

    @property
    def state(self) -> JobState:
        """The present state; asks the platform while the job has not ended."""
        return self._record.state if self._record.state.terminal else self.refresh().state

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._record.modality}, {self._record.state})"

    def refresh(self) -> JobRecord:
        """Ask the platform anew, and return what it says."""
        self._record = self._client._transport.read(_JOB, "GET", _path("jobs", self.id))
        return self._record

    def cancel(self) -> JobRecord:
        """Ask for the job to be stopped; its record after that."""
        self._record = self._client.cancel(self.id)._record
        return self._record

    def events(self, after: int = 0, *, timeout: float | None = None) -> Iterator[EventRecord]:
        """What happened and happens to the job, each event once and in order, until the job has ended.

        Args:
            after: leave out the events up to this number.
            timeout: seconds after which `TimeoutError` is raised.

        Raises:
            Unreachable: the platform was not heard for a minute. The job is not affected.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            yield from self._client._transport.events(
                _path("jobs", self.id) + "/events", after, lambda: self.refresh().state.terminal, deadline
            )
        except TimeoutError:
            raise TimeoutError(
                f"job {self.id} has not ended after {timeout:g} s; it goes on, and can be waited for again"
            ) from None

    def wait(
        self, timeout: float | None = None, *, progress: bool | Callable[[EventRecord], None] = False
    ) -> JobRecord:
        """Wait for the job's end; its record then.

        Args:
            timeout: seconds after which `TimeoutError` is raised.
            progress: True draws a progress bar; a function is called with every event.

        Raises:
            JobCancelled: somebody cancelled it.
            JobFailed: it ended without a result, with the reason.
            KeyboardInterrupt: Ctrl-C. The job goes on; the message says how to come back to it.
        """
        try:
            if not self._record.state.terminal:
                self._follow(timeout, progress)
                self.refresh()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"job {self.id} goes on; see it with `perrin job {self.id} --watch`, "
                f"stop it with `perrin cancel {self.id}`"
            ) from None
        record = self._record
        if record.state is JobState.CANCELLED:
            raise JobCancelled(f"job {self.id} was cancelled")
        if record.state is not JobState.SUCCEEDED:
            reason = record.error.message if record.error else f"it ended {record.state} and gave no reason"
            raise JobFailed(f"job {self.id} failed: {reason}")
        return record

    def _follow(self, timeout: float | None, progress: bool | Callable[[EventRecord], None]) -> None:
        with ExitStack() as stack:
            show = progress if callable(progress) else None
            if progress is True:
                from perrin.progress import StageBar

                bar = stack.enter_context(StageBar())
                show = lambda event: bar.update(*_bar_line(event))  # noqa: E731
            for event in self.events(timeout=timeout):
                if show is not None:
                    show(event)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The result files; none until the job has succeeded."""
        if not self._record.state.terminal:
            self.refresh()
        return tuple(Artifact(self._client, record) for record in self._record.artifacts)

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Wait for the end, then write the result files; where they are.

        Args:
            path: a folder (made if need be), or a file name with the ending of the job's format. Several files are
                numbered: ``apple-0.png``, ``apple-1.png``.

        Raises:
            InvalidInput: the ending is of another format, or the file cannot be written.
            StorageError: the disk is full, or the bytes are not those the job wrote.
        """
        target, folder = check_target(path, self._record.format)
        self.wait()
        if folder:
            target.mkdir(parents=True, exist_ok=True)
            paths = tuple(target / f"{self.id}-{Path(artifact.name).name}" for artifact in self.artifacts)
        else:
            paths = numbered(target, len(self.artifacts))
        check_writable(paths)
        return write_files({at: artifact.bytes() for at, artifact in zip(paths, self.artifacts, strict=True)})

    def preview(self) -> bytes | None:
        """A small PNG of the result so far; None while there is none."""
        try:
            return self._client._transport.request("GET", _path("jobs", self.id) + "/preview").content
        except NotFound:
            return None


class Artifact:
    """A result file on the platform."""

    def __init__(self, client: Client, record: ArtifactRecord) -> None:
        self._client = client
        self._record = record

    @property
    def record(self) -> ArtifactRecord:
        """Everything known of the file."""
        return self._record

    @property
    def name(self) -> str:
        """Its name within the job, such as ``0.png``."""
        return self._record.name

    @property
    def metadata(self) -> dict[str, Any]:
        """Model, hash and every parameter: enough to make it again."""
        return self._record.metadata

    def __repr__(self) -> str:
        return f"Artifact({self.name!r}, {self._record.media_type}, {self._record.size} bytes)"

    def bytes(self) -> bytes:
        """The file's bytes.

        Raises:
            StorageError: they are not those that the job wrote.
        """
        data = self._client._transport.request("GET", _path("artifacts", self._record.id)).content
        if hashlib.sha256(data).hexdigest() != self._record.sha256:
            raise StorageError(f"{self.name} of job {self._record.job_id} is not what the job wrote: another SHA-256")
        return data

    def save(self, path: str | Path) -> Path:
        """Write the file under ``path``, whole or not at all."""
        target = Path(path).expanduser()
        check_writable([target])
        return write_files({target: self.bytes()})[0]


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _bar_line(event: EventRecord) -> tuple[int, int | None, str]:
    if event.progress is None:
        return 0, None, event.state
    return event.progress.done, event.progress.total, event.progress.stage


def _read_run_file(path: Path) -> dict[str, Any] | None:
    """What ``perrin up`` wrote, or None where no platform was started."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("url"), str) else None
