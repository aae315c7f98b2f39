"""One device's process: claims what the engine has room for, runs it, saves it, commits it.

It makes the transitions of its jobs (claim, start, commit, fail, cancel, release); keeping their leases alive is the
supervisor's part, so that a busy interpreter here never costs a lease. Between two ticks it hears what the supervisor
says: look for work, stop this job, forget that one, drain. It dies with its supervisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from perrin.engine import Doing, Engine, Event, Failed, File, Finished, Preview, Progress, Request
from perrin.errors import Degenerate, InvalidInput, PerrinError, StorageAway, StorageError, Unreachable
from perrin.settings import Settings
from perrin_orchestration import logs
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.channel import Channel, Closed
from perrin_orchestration.inputs import read_inputs
from perrin_orchestration.store import CancelRequested, Job, JobStore, LeaseRef, NewArtifact, StaleLease, Warmth

__all__ = ["EngineProcess", "Identity", "error_kind", "main"]

IDLE_SECONDS = 0.5
"""With room to spare, look for work this often even when nobody hints."""

GRACE_SECONDS = 3.0
"""When told to drain, jobs have this long to finish; then they are saved and released."""

AGAIN_SECONDS = 1.0
"""An end that could not be written is tried again after this long."""

CAPACITY, CAPACITY_CPU = 32, 4
"""Jobs that a process holds at once. A CPU gains little from more, and another machine may be idle."""

_log = structlog.get_logger("perrin.engine")


@dataclass(frozen=True)
class Identity:
    """Who this process is to the store: ``owner`` is its own fresh id, ``worker`` its supervisor's."""

    owner: str
    worker: str
    pools: tuple[str, ...]


@dataclass
class _Held:
    """A job in flight here."""

    job: Job
    resumed: bool
    saved_at: float
    moved: bool = False

    @property
    def lease(self) -> LeaseRef:
        return self.job.lease


class _Unwritten(NamedTuple):
    """The end of a held job, which could not be written; when to try again."""

    held: _Held
    write: Callable[[], bool | None]
    keep_state: bool
    again_at: float


def error_kind(error: BaseException) -> tuple[str, str]:
    """A short kind and one line for people, for whatever ended a job."""
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (Degenerate, "degenerate"),
        (StorageError, "storage"),
        (InvalidInput, "invalid"),
        (MemoryError, "memory"),
    )
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "error")
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        kind = "memory"
    line = next(iter(str(error).strip().splitlines()), "") or "no message"
    shown = line if isinstance(error, PerrinError) else f"{type(error).__name__}: {line}"
    return kind, shown[:500]


class EngineProcess:
    """Drives ``engine`` with jobs from ``store``, told what to do through ``channel``."""

    def __init__(
        self,
        identity: Identity,
        channel: Channel,
        engine: Engine,
        store: JobStore,
        artifacts: ArtifactStore,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me, self._channel, self._engine = identity, channel, engine
        self._store, self._artifacts, self._settings = store, artifacts, settings
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._unwritten: dict[str, _Unwritten] = {}
        self._look_at = 0.0
        self._drain_until: float | None = None
        self._models: tuple[str, ...] = ()
        self._elsewhere: frozenset[str] = frozenset()
        engine.report = self._report

    def run(self) -> None:
        """Work until drained, or until the supervisor is gone."""
        self._channel.send({"is": "ready"})
        with contextlib.suppress(Closed):
            while self._drain_until is None or self._held:
                self._listen()
                self._claim()
                self._tick()
                self._write_again()
                self._save()
                if self._drain_until is not None and self._clock() > self._drain_until:
                    self._release()

    def drain(self) -> None:
        """Claim no more; finish within the grace, or save and release."""
        if self._drain_until is None:
            self._drain_until = self._clock() + GRACE_SECONDS

    # --- what the supervisor says -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        idle = max(0.0, min(IDLE_SECONDS, self._look_at - self._clock()))
        if self._held:
            idle = AGAIN_SECONDS / 4 if self._held.keys() <= self._unwritten.keys() else 0.0
        for message in self._channel.receive(idle):
            match message["do"]:
                case "claim":
                    self._look_at = 0.0
                case "drain":
                    self.drain()
                case "elsewhere":
                    self._elsewhere = frozenset(message["models"])
                case "cancel":
                    self._cancel(message["id"], message["epoch"])
                case "abandon":
                    self._abandon(message["id"], message["epoch"])

    def _cancel(self, job_id: str, epoch: int) -> None:
        held = self._held.get(job_id)
        if held is not None and held.job.epoch == epoch:
            self._engine.cancel(job_id)
            self._end(held, lambda: self._store.cancelled(held.lease))

    def _abandon(self, job_id: str, epoch: int) -> None:
        """The lease is lost, or cannot be kept: whatever this process thinks of the job is worth nothing."""
        held = self._held.get(job_id)
        if held is not None and held.job.epoch == epoch:
            _log.warning("job abandoned", job=job_id, epoch=epoch)
            self._forget(held, "lost")

    # --- claim and run ------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        if self._drain_until is not None or self._engine.free < 1 or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + IDLE_SECONDS
        if not self._held:
            self._channel.send({"is": "alive"})
        try:
            self._artifacts.check_ready()
            who, free, lease = self._me, self._engine.free, self._settings.lease_seconds
            warmth = Warmth(frozenset(name.partition("@")[0] for name in self._engine.loaded), self._elsewhere)
            asked = self._clock()
            jobs = self._store.claim(who.owner, who.worker, who.pools, free, lease, warmth)
        except PerrinError as error:
            _log.warning("claims nothing", reason=error.message)
            self._look_at = self._clock() + 5.0
            if isinstance(error, StorageError):
                self._block(error)
            return
        for job in jobs:
            self._channel.send({"is": "claimed", "id": job.id, "epoch": job.epoch, "asked": asked})
            self._admit(job)

    def _admit(self, job: Job, fresh: bool = False) -> None:
        held = _Held(job, False, self._clock())
        self._held[job.id] = held
        try:
            state = None if fresh else self._saved(job)
            held.resumed = state is not None
            request = Request(
                job.id,
                job.modality,
                job.parameters,
                job.format,
                state=state,
                previews=True,
                owner=job.user_id,
                priority=job.priority,
                deadline=None if job.deadline is None else self._clock() + job.deadline - time.time(),
                strict=job.crashes > 0,  # one of several ended their process; alone, it shows which
                inputs=read_inputs(job, self._store, self._artifacts, self._alive),
            )
            if not fresh:
                self._store.start(job.lease)
            self._engine.admit(request)
        except StaleLease:
            self._forget(held, "lost")
        except Unreachable as error:  # the store went away since the claim: no fault of the job's
            _log.warning("job given back", job=job.id, reason=error.message)
            self._end(held, lambda: self._store.release(held.lease), keep_state=True)
        except Exception as error:  # a plugin's face may raise anything
            self._fail(held, error)
        else:
            _log.info("job started", job=job.id, epoch=job.epoch, resumed=held.resumed)

    def _saved(self, job: Job) -> bytes | None:
        if job.saved_sha256 is None:
            return None
        try:
            return self._artifacts.state(job.id, job.saved_sha256, self._alive)
        except StorageAway:  # it may still be there: worth waiting for
            raise
        except StorageError as error:
            _log.warning("starts over", job=job.id, reason=error.message)
            return None

    def _tick(self) -> None:
        if not self._engine.requests:
            return
        for event in self._engine.tick():
            held = self._held.get(event.id)
            if held is not None:
                self._handle(held, event)
        if self._engine.loaded != self._models:
            self._models = self._engine.loaded
            self._channel.send({"is": "models", "names": [name.partition("@")[0] for name in self._models]})

    def _report(self, doing: Doing) -> None:
        """Say what a plugin is about to be called for: if it hangs or crashes, that is who is to blame."""
        with contextlib.suppress(Closed):  # noticed at the next message; here it would look like the plugin's error
            self._channel.send({"is": "turn", "ids": doing.requests, "stage": doing.stage})

    def _alive(self) -> None:
        """Bytes are on their way."""
        with contextlib.suppress(Closed):
            self._channel.send({"is": "alive"})

    def _handle(self, held: _Held, event: Event) -> None:
        match event:
            case Progress(id=job_id, stage=stage, done=done, total=total):
                held.moved = held.moved or (stage == "step" and done > 0)
                where = {"id": job_id, "epoch": held.job.epoch, "stage": stage, "done": done, "total": total}
                self._channel.send({"is": "progress", **where})
            case Preview(id=job_id, png=png):
                with contextlib.suppress(StorageError):
                    self._artifacts.put_preview(held.lease, png)
                    self._channel.send({"is": "preview", "id": job_id, "epoch": held.job.epoch})
            case Finished(files=files):
                self._end(held, lambda: self._commit(held, files))
            case Failed(error=error) if held.resumed and not held.moved:
                _log.warning("saved state not usable, starts over", job=held.job.id, error=error_kind(error)[1])
                self._admit(held.job, fresh=True)
            case Failed(error=error):
                self._fail(held, error)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _commit(self, held: _Held, files: tuple[File, ...]) -> bool:
        """Whether the job is to go on from its saved state: its files could not be kept, and may be another time."""
        lease = held.lease
        try:
            self._store.committing(lease)
            staged = []
            for number, file in enumerate(files):
                staged.append(self._artifacts.stage(lease, number, file.data, self._alive))
                self._alive()
            for item in staged:
                self._artifacts.publish(item)
            rows = [
                NewArtifact(file.name, file.media_type, item.size, item.sha256, file.items, file.metadata)
                for file, item in zip(files, staged, strict=True)
            ]
            self._store.commit(lease, rows)
        except CancelRequested:
            self._artifacts.discard(lease)
            self._store.cancelled(lease)
        except StorageError as error:
            self._artifacts.discard(lease)
            self._store.fail(lease, *error_kind(error))
            self._block(error)
            return True
        except StaleLease:
            self._artifacts.discard(lease)
            raise
        return False

    def _block(self, error: StorageError) -> None:
        """Results cannot be written: nobody is to begin what would be lost. The supervisor opens the pools again."""
        with contextlib.suppress(PerrinError):
            if pools := self._store.pools.block(self._me.pools, error.message):
                _log.error("pools blocked", pools=pools, reason=error.message)

    def _fail(self, held: _Held, error: Exception) -> None:
        kind, line = error_kind(error)
        _log.warning("job failed", job=held.job.id, kind=kind, error=line)
        self._end(held, lambda: self._store.fail(held.lease, kind, line), keep_state=kind == "storage")

    def _release(self) -> None:
        for held in tuple(self._held.values()):
            self._save_one(held)
            self._end(held, lambda held=held: self._store.release(held.lease), keep_state=True)  # type: ignore[misc]

    def _end(self, held: _Held, write: Callable[[], bool | None], *, keep_state: bool = False) -> None:
        """Write a job's end down; again and again where the store is away, until the lease is lost: then its end is no
        longer ours to write, and the supervisor gives the job back.
        """
        try:
            keep_state = write() or keep_state
        except StaleLease:
            self._forget(held, "lost")
            return
        except Unreachable as error:
            _log.error("end not written yet", job=held.job.id, error=error.message)
            self._alive()
            self._unwritten[held.job.id] = _Unwritten(held, write, keep_state, self._clock() + AGAIN_SECONDS)
            return
        if not keep_state:
            self._artifacts.forget(held.job.id)
        self._forget(held, "ended")

    def _write_again(self) -> None:
        for late in tuple(self._unwritten.values()):
            if self._clock() >= late.again_at:
                self._alive()
                self._end(late.held, late.write, keep_state=late.keep_state)

    def _forget(self, held: _Held, how: str) -> None:
        self._engine.cancel(held.job.id)
        self._held.pop(held.job.id, None)
        self._unwritten.pop(held.job.id, None)
        self._artifacts.drop_preview(held.lease)
        self._look_at = 0.0
        self._channel.send({"is": how, "id": held.job.id, "epoch": held.job.epoch})

    # --- saves --------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        now = self._clock()
        for held in tuple(self._held.values()):
            if now - held.saved_at >= self._settings.save_seconds:
                held.saved_at = now
                self._save_one(held)

    def _save_one(self, held: _Held) -> None:
        """Keep the sampler state. A job does not fail because it could not be saved; it only has more to repeat."""
        state = self._engine.save(held.job.id)
        if state is None:
            return
        try:
            sha256 = self._artifacts.put_state(held.lease, state, self._alive)
            self._store.save(held.lease, sha256)
        except StaleLease:
            self._forget(held, "lost")
        except PerrinError as error:
            _log.warning("sampler state not saved", job=held.job.id, reason=error.message)
        else:
            self._artifacts.drop_states(held.job.id, keep=sha256)


def _introduce() -> None:
    """Have a name, and ask Linux for death with the parent; elsewhere the closed channel ends this after a tick.

    The parent is the fork server, which ends when its supervisor does.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(15, b"perrin-engine")  # PR_SET_NAME
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main(connection: socket.socket) -> None:
    """Run as the child of a supervisor that holds the other end of ``connection``."""
    _introduce()
    try:
        _work(Channel(connection))
    except PerrinError as error:
        _log.error("engine cannot work", reason=error.message)
        os._exit(error.exit_code)
    os._exit(0)  # a driver's clean-up on exit may hang, and everything that matters is in the store


def _work(channel: Channel) -> None:
    settings = Settings()
    said: list[dict[str, Any]] = []
    while not said:  # a supervisor that stands still is waited for; one that is gone closes the channel
        said = channel.receive(30.0)
    setup = said[0]
    logs.configure(settings.log_level, process="engine", engine=setup["owner"], device=setup["device"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which drains
    process = EngineProcess(
        Identity(setup["owner"], setup["worker"], tuple(setup["pools"])),
        channel,
        Engine(
            setup["device"],
            capacity=CAPACITY_CPU if setup["device"] == "cpu" else CAPACITY,
            memory=settings.memory,
        ),
        JobStore(settings.store_url),
        ArtifactStore(settings.artifacts_path, settings.min_free_mb),
        settings,
    )
    signal.signal(signal.SIGTERM, lambda *_: process.drain())
    process.run()
