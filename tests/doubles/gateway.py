"""A gateway for tests: the wire over real HTTP, jobs in memory, and every way a connection can go wrong on demand."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import dots

from perrin.errors import Conflict, InvalidInput, NotAllowed, NotFound, PerrinError, UnknownName
from perrin.modality import Modality, validate
from perrin.wire import (
    ArtifactRecord,
    AttemptRecord,
    EventRecord,
    GroupRecord,
    Health,
    JobError,
    JobRecord,
    JobState,
    ModalityInfo,
    ModelInfo,
    PoolAction,
    PoolRecord,
    ProgressRecord,
    Submission,
    UserRecord,
    WorkerRecord,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = "secret"


class Gateway:
    """Answers on a free port while it is used as a context.

    Attributes:
        lose_requests: this many requests are carried out, and their answers lost.
        refuse: this many requests are answered 503.
        events_per_stream: a stream of events breaks off after this many.
        cut: it breaks off in the middle of the next one.
        on_event: called before each event is sent.
        requests: method and path of everything that was asked.
    """

    def __init__(self) -> None:
        self.faces = {"dots": dots.face}
        self.jobs: dict[str, JobRecord] = {}
        self.events: dict[str, list[EventRecord]] = {}
        self.files: dict[str, bytes] = {}
        self.previews: dict[str, bytes] = {}
        self.keys: dict[str, str] = {}
        self.workers: list[WorkerRecord] = []
        self.groups: dict[str, GroupRecord] = {}
        self.pools: dict[str, PoolRecord] = {}
        self.attempts: dict[str, list[AttemptRecord]] = {}
        self.user = UserRecord(name="me", operator=True)
        self.requests: list[str] = []
        self.lose_requests = 0
        self.refuse = 0
        self.events_per_stream = 10**9
        self.cut = False
        self.media_type = "image/png"
        self.on_event: Callable[[EventRecord], None] | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        outer = self

        class Handler(_Handler):
            gateway = outer

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def submit(self, submission: Submission, key: str | None) -> JobRecord:
        with self._lock:
            if key is not None and key in self.keys:
                return self.jobs[self.keys[key]]
            face = self.faces.get(submission.modality)
            if face is None:
                raise UnknownName("modality", submission.modality, "one of " + ", ".join(self.faces))
            values = validate(face, submission.parameters).model_dump(mode="json")
            job_id = f"job{len(self.jobs)}"
            record = JobRecord(
                id=job_id,
                user="me",
                modality=face.name,
                model=values["model"] or face.default_model,
                parameters=values | {"seed": values["seed"] or 0},
                format=face.format(submission.format or face.formats[0].name).name,
                label=submission.label,
                priority=submission.priority,
                state=JobState.QUEUED,
                cancel_requested=False,
                progress=None,
                position=0,
                attempts=0,
                epoch=0,
                worker=None,
                error=None,
                artifacts=[],
                created_at=NOW,
                started_at=None,
                finished_at=None,
            )
            self.jobs[job_id] = record
            self.events[job_id] = []
            if key is not None:
                self.keys[key] = job_id
            self.happen(job_id, JobState.QUEUED)
            return record

    def happen(self, job_id: str, state: JobState, progress: ProgressRecord | None = None, **changes: Any) -> None:
        """The job is in ``state`` now, with an event that says so."""
        with self._lock:
            update = {"state": state, "progress": progress, **changes}
            self.jobs[job_id] = self.jobs[job_id].model_copy(update=update)
            kind = "state" if progress is None else "progress"
            number = len(self.events[job_id]) + 1
            event = EventRecord(number=number, job_id=job_id, at=NOW, kind=kind, state=state, progress=progress)
            self.events[job_id].append(event)

    def run(self, job_id: str, steps: int = 5) -> None:
        """Run the job to its end."""
        self.happen(job_id, JobState.RUNNING, worker="worker-1", started_at=NOW)
        for step in range(1, steps + 1):
            self.happen(job_id, JobState.RUNNING, ProgressRecord(stage="step", done=step, total=steps))
        self.finish(job_id)

    def finish(self, job_id: str) -> None:
        """The job has succeeded, with a file for every item."""
        record = self.jobs[job_id]
        artifacts = []
        for item in range(record.parameters["count"]):
            data = self.draw(record, item)
            self.files[f"{job_id}-{item}"] = data
            artifacts.append(
                ArtifactRecord(
                    id=f"{job_id}-{item}",
                    job_id=job_id,
                    name=f"{item}.{record.format}",
                    media_type=self.media_type,
                    size=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    items=[item],
                    metadata={"parameters": record.parameters},
                )
            )
        self.happen(job_id, JobState.SUCCEEDED, artifacts=artifacts, finished_at=NOW, worker="worker-1", started_at=NOW)

    def once_there(self, job_id: str, act: Callable[[str], None]) -> None:
        """In another thread, as soon as the job has been submitted and a client follows it."""

        def wait() -> None:
            while not any(job_id in request and "events" in request for request in self.requests):
                time.sleep(0.01)
            act(job_id)

        threading.Thread(target=wait, daemon=True).start()

    def draw(self, record: JobRecord, item: int) -> bytes:
        """The picture that a job makes."""
        return dots.png({"perrin": json.dumps({"parameters": record.parameters})}, 40 * item)

    def fail(self, job_id: str, reason: str) -> None:
        """The job has failed."""
        self.happen(job_id, JobState.FAILED, error=JobError(kind="degenerate", message=reason), finished_at=NOW)

    def cancel(self, job_id: str) -> JobRecord:
        if self.job(job_id).state.terminal:
            raise Conflict(f"job {job_id} has ended already")
        self.happen(job_id, JobState.CANCELLED, cancel_requested=True, finished_at=NOW)
        return self.job(job_id)

    def retry(self, job_id: str) -> JobRecord:
        old = self.job(job_id)
        if any(record.retry_of == job_id for record in self.jobs.values()):
            raise Conflict(f"job {job_id} was tried again already")
        again = self.submit(Submission(modality=old.modality, parameters=old.parameters), None)
        self.jobs[again.id] = again.model_copy(update={"retry_of": job_id})
        return self.jobs[again.id]

    def change_pool(self, name: str, change: PoolAction) -> PoolRecord:
        if not self.user.operator:
            raise NotAllowed("pools are for operators")
        state = {"pause": "paused", "drain": "draining", "resume": "open"}[change.action]
        self.pools[name] = self.pools[name].model_copy(update={"state": state, "reason": change.reason})
        return self.pools[name]

    def job(self, job_id: str) -> JobRecord:
        if job_id not in self.jobs:
            raise NotFound(f"no job {job_id}")
        return self.jobs[job_id]

    def listed(
        self,
        state: str = "",
        modality: str = "",
        search: str = "",
        limit: str = "50",
        before: str = "",
        dead: str = "",
    ) -> Any:
        found = [*self.jobs.values()][::-1]
        if dead:
            tried = {record.retry_of for record in found}
            found = [one for one in found if one.state in ("failed", "quarantined") and one.id not in tried]
        if before:
            found = found[[record.id for record in found].index(before) + 1 :]
        return [
            record
            for record in found
            if state in ("", record.state)
            and modality in ("", record.modality)
            and search.lower() in (str(record.parameters.get("prompt")) + record.label).lower()
        ][: int(limit)]


def modality_info(face: Modality) -> ModalityInfo:
    return ModalityInfo(
        name=face.name,
        title=face.title,
        summary=face.summary,
        view=face.view,
        formats=[f.name for f in face.formats],
        media_types=[f.media_type for f in face.formats],
        default_model=face.default_model,
        parameters=face.parameters.model_json_schema(),
        examples=[dict(example) for example in face.examples],
    )


def model_info(face: Modality) -> ModelInfo:
    return ModelInfo(
        name=face.default_model,
        modality=face.name,
        title=face.title,
        summary="",
        licence="CC0-1.0",
        sha256="0" * 64,
        defaults={"steps": 3, "guidance": 1.0},
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    gateway: Gateway
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gateway = self.gateway
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/v1")
        gateway.requests.append(f"{self.command} {path}")
        if gateway.refuse > 0:
            gateway.refuse -= 1
            return self._error(PerrinError("the database is away"), 503, "Unreachable")
        try:
            if path != "/health" and self.headers.get("Authorization") != f"Bearer {KEY}":
                raise NotAllowed("API key missing or wrong")
            if found := re.fullmatch(r"/jobs/([^/]+)/events", path):
                return self._stream(found[1], int(query.get("after", 0)))
            answer = self._answer(path, query, body)
        except PerrinError as error:
            return self._error(error, error.status, type(error).__name__)
        if gateway.lose_requests > 0:
            gateway.lose_requests -= 1
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if isinstance(answer, bytes):
            return self._send(200, answer, "application/octet-stream")
        many = isinstance(answer, list)
        plain = [item.model_dump(mode="json") for item in answer] if many else answer.model_dump(mode="json")
        return self._send(200, json.dumps(plain).encode())

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> Any:
        gateway = self.gateway
        parts = path.strip("/").split("/")
        match parts:
            case ["health"]:
                queued = sum(not job.state.terminal for job in gateway.jobs.values())
                return Health(
                    ok=True, version="0.1.0", schema_revision="1", workers=len(gateway.workers), queued=queued
                )
            case ["modalities"]:
                return [modality_info(face) for face in gateway.faces.values()]
            case ["models"]:
                return [model_info(face) for face in gateway.faces.values()]
            case ["workers"]:
                return gateway.workers
            case ["me"]:
                return gateway.user
            case ["pools"]:
                return [*gateway.pools.values()]
            case ["pools", name]:
                return gateway.change_pool(name, PoolAction.model_validate_json(body))
            case ["groups"]:
                return [*gateway.groups.values()]
            case ["groups", group_id] if group_id in gateway.groups:
                return gateway.groups[group_id]
            case ["jobs", job_id, "history"]:
                return gateway.attempts.get(job_id, [])
            case ["jobs", job_id, "retry"]:
                return gateway.retry(job_id)
            case ["jobs"] if self.command == "POST":
                return gateway.submit(Submission.model_validate_json(body), self.headers.get("Idempotency-Key"))
            case ["jobs"]:
                return gateway.listed(**query)
            case ["jobs", job_id]:
                return gateway.job(job_id)
            case ["jobs", job_id, "cancel"]:
                return gateway.cancel(job_id)
            case ["jobs", job_id, "preview"] if job_id in gateway.previews:
                return gateway.previews[job_id]
            case ["artifacts", artifact] if artifact in gateway.files:
                return gateway.files[artifact]
        raise NotFound(f"nothing at {path}")

    def _stream(self, job_id: str, after: int) -> None:
        """Events as they come; a comment now and then; the end after the job's."""
        gateway = self.gateway
        gateway.job(job_id)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        sent = 0
        while True:
            with gateway._lock:
                news = gateway.events[job_id][after:]
                over = gateway.job(job_id).state.terminal
            for event in news:
                if gateway.on_event is not None:
                    gateway.on_event(event)
                text = f"id: {event.number}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
                if sent == gateway.events_per_stream:
                    return self.wfile.write(text[: len(text) // 2].encode()) if gateway.cut else None
                self.wfile.write(text.encode())
                self.wfile.flush()
                sent += 1
                after = event.number
            if over:
                return None
            self.wfile.write(b": still here\n\n")
            time.sleep(0.02)

    def _error(self, error: PerrinError, status: int, kind: str) -> None:
        field = error.field if isinstance(error, InvalidInput) else None
        body = {"error": {"kind": kind, "field": field, "message": error.message}}
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
