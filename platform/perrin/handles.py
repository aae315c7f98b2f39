"""What the SDK hands out: jobs, groups of them, and result files, each a handle that asks the platform when needed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import TypeAdapter

from perrin.errors import JobCancelled, JobFailed, NotFound, StorageError
from perrin.files import check_target, check_writable, numbered, write_files
from perrin.wire import ArtifactRecord, AttemptRecord, EventRecord, GroupRecord, JobRecord, JobState

if TYPE_CHECKING:
    from perrin.client import Client

__all__ = ["Artifact", "Group", "Job", "wire_path"]

_JOB = TypeAdapter(JobRecord)
_GROUP = TypeAdapter(GroupRecord)
_HISTORY = TypeAdapter(list[AttemptRecord])


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
        self._record = self._client._transport.read(_JOB, "GET", wire_path("jobs", self.id))
        return self._record

    def cancel(self) -> JobRecord:
        """Ask for the job to be stopped; its record after that."""
        self._record = self._client.cancel(self.id)._record
        return self._record

    def retry(self) -> Job:
        """Try this job once more, as a new job that uses the same parameters; with those that ended for its sake.

        Raises:
            Conflict: it has not come to nothing, or was tried again already.
        """
        return self._client.retry(self.id)

    def history(self) -> list[AttemptRecord]:
        """The attempts at it: who held it, which stages took how long, how each ended."""
        return self._client._transport.read(_HISTORY, "GET", wire_path("jobs", self.id) + "/history")

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
                wire_path("jobs", self.id) + "/events", after, lambda: self.refresh().state.terminal, deadline
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
            return self._client._transport.request("GET", wire_path("jobs", self.id) + "/preview").content
        except NotFound:
            return None


class Group:
    """Jobs that were submitted together."""

    def __init__(self, client: Client, record: GroupRecord) -> None:
        self._client = client
        self._record = record

    @property
    def id(self) -> str:
        """The id to find the group by, from anywhere."""
        return self._record.id

    @property
    def record(self) -> GroupRecord:
        """Everything known of the group when it was last asked for; `refresh` asks again."""
        return self._record

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs, in the order of their submission."""
        return tuple(Job(self._client, record) for record in self._record.jobs)

    def __repr__(self) -> str:
        return f"Group({self.id!r}, {dict(self._record.states)})"

    def refresh(self) -> GroupRecord:
        """Ask the platform anew, and return what it says."""
        self._record = self._client._transport.read(_GROUP, "GET", wire_path("groups", self.id))
        return self._record

    def cancel(self) -> GroupRecord:
        """Ask for every job of it to be stopped that has not ended; its record after that."""
        self._record = self._client._transport.read(_GROUP, "POST", wire_path("groups", self.id) + "/cancel")
        return self._record

    def wait(self, timeout: float | None = None) -> GroupRecord:
        """Wait until all of it has ended; its record then. What failed raises nothing: look at the states.

        Args:
            timeout: seconds after which `TimeoutError` is raised.
        """
        end = None if timeout is None else time.monotonic() + timeout
        for job in self.jobs:
            if not job.record.state.terminal:
                for _ in job.events(timeout=None if end is None else max(0.0, end - time.monotonic())):
                    pass
        return self.refresh()


class Artifact:
    """A result file on the platform. It can be a parameter of another job, where that takes a file."""

    def __init__(self, client: Client, record: ArtifactRecord) -> None:
        self._client = client
        self._record = record

    @property
    def id(self) -> str:
        """The id to find the file by."""
        return self._record.id

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
        data = self._client._transport.request("GET", wire_path("artifacts", self._record.id)).content
        if hashlib.sha256(data).hexdigest() != self._record.sha256:
            raise StorageError(f"{self.name} of job {self._record.job_id} is not what the job wrote: another SHA-256")
        return data

    def save(self, path: str | Path) -> Path:
        """Write the file under ``path``, whole or not at all."""
        target = Path(path).expanduser()
        check_writable([target])
        return write_files({target: self.bytes()})[0]


def wire_path(*parts: str) -> str:
    """A path of the wire; a part may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _bar_line(event: EventRecord) -> tuple[int, int | None, str]:
    if event.progress is None:
        return 0, None, event.state
    return event.progress.done, event.progress.total, event.progress.stage
