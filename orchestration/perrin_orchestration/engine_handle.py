"""The supervisor's side of one engine process: what it holds, whether it moves, and how long it may take.

A lease is the longer of the configured time and four times the slowest recent unit of the stage that the engine is in,
as measured here. An engine that has not moved for that long hangs, and its leases are not renewed past it.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from perrin_orchestration import engine_process
from perrin_orchestration.channel import Channel, Closed
from perrin_orchestration.energy import Meter, shares
from perrin_orchestration.store import LeaseRef, Move

__all__ = ["EngineHandle", "Tracked"]

SLACK = 4.0
"""How much longer than the slowest measured a unit of a stage may take. A first load is measured against nothing, so
it has this many leases."""

RECENT = 32
"""How many units of a stage are remembered. A machine that once stood still must not have long leases for ever."""

IDLE_SILENCE = 30.0
"""An engine without jobs says a word with every look for work; one that has been silent for this long hangs."""

# On Linux an engine is forked from a process that has imported its runtimes (`perrin_orchestration.preload`).
if sys.platform == "linux":
    _processes = multiprocessing.get_context("forkserver")
    _processes.set_forkserver_preload(["perrin_orchestration.preload"])
else:
    _processes = multiprocessing.get_context("spawn")

_log = structlog.get_logger("perrin.supervisor")


@dataclass
class Tracked:
    """A job that the engine holds, as far as its messages tell."""

    lease: LeaseRef
    until: float
    stage: str = "load"
    done: int = 0
    total: int = 1
    news: str = ""
    """Kind of the event to be written, or nothing."""
    turned: bool = False
    """The stage changed since the last write."""


class EngineHandle:
    """One engine process, started again whenever it dies.

    Args:
        worker: the supervisor's id.
        device: where its models run.
        pools: what it may claim.
        lease_seconds: the shortest lease.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        worker: str,
        device: str,
        pools: tuple[str, ...],
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self._worker, self._pools, self._lease = worker, pools, lease_seconds
        self._clock = clock
        self._took: dict[str, deque[float]] = {}
        self._spawns = 0
        self._asked = self._clock()
        self.finished = 0
        self.spawn_at = 0.0
        self.spent: dict[str, float] = {}
        self._meter, self._joules = Meter(device), dict[str, float]()
        self._spent_at = self._clock()

    def spawn(self) -> None:
        """Start the process, under an id that no process had before."""
        self.owner = uuid.uuid4().hex
        self.jobs: dict[str, Tracked] = {}
        self.models: tuple[str, ...] = ()
        self.elsewhere: frozenset[str] = frozenset()
        self.turn: tuple[str, ...] = ()
        self.stage = ""
        self.ready = False
        self._began = self._moved = self._renewed = self._clock()
        ours, theirs = socket.socketpair()
        self.process = _processes.Process(target=engine_process.main, args=(theirs,), name="perrin-engine")
        self.process.start()
        theirs.close()
        self.channel = Channel(ours)
        setup = {"owner": self.owner, "worker": self._worker, "pools": self._pools, "device": self.device}
        self.tell(setup)
        self._spawns += 1

    def respawn_later(self) -> None:
        """After a crash: at once the first time, then after 1, 2, 4 ... 30 s while it dies without ever being ready."""
        self._spawns = 1 if self.ready else self._spawns
        self.spawn_at = self._clock() + (0.0 if self.ready else min(30.0, 2.0 ** (self._spawns - 1)))

    def tell(self, message: Mapping[str, Any]) -> None:
        """Say something to the process; if it is dead, that is noticed elsewhere."""
        try:
            self.channel.send(message)
        except Closed:
            _log.debug("engine does not listen", owner=self.owner)

    def hear(self) -> None:
        """Take in what the process has said."""
        try:
            for message in self.channel.receive(0.0):
                self._note(message)
        except Closed:
            return

    def _note(self, message: Mapping[str, Any]) -> None:
        now = self._clock()
        self._moved = now
        self._spend(now)
        match message["is"]:
            case "alive":
                pass
            case "ready":
                self.ready = True
            case "claimed":
                lease = LeaseRef(message["id"], message["epoch"], self.owner)
                self.jobs[lease.id] = Tracked(lease, message["asked"] + self._lease)  # one clock for all processes
            case "turn":
                self._measure(now)
                self.turn, self.stage = tuple(message["ids"]), message["stage"]
            case "progress" | "preview":
                job = self._tracked(message)
                if job is not None:
                    self._progress(job, message)
            case "ended" | "lost":
                self.finished += message["is"] == "ended"
                if self._tracked(message) is not None:
                    del self.jobs[message["id"]]
                if not self.jobs:
                    self._measure(now)
                    self.turn = ()
            case "models":
                self.models = tuple(message["names"])

    def _spend(self, now: float) -> None:
        """The device has worked for the jobs whose turn it is since the last message; they share the time evenly."""
        for job_id in (jobs := self.blamed):
            self.spent[job_id] = self.spent.get(job_id, 0.0) + (now - self._spent_at) / len(jobs)
        self._spent_at = now

    def bill(self) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds and joules, by job, that are not on the accounts yet."""
        seconds = dict(self.spent)
        for job_id, joules in shares(self._meter.read(), seconds).items():
            self._joules[job_id] = self._joules.get(job_id, 0.0) + joules
        return seconds, dict(self._joules)

    def paid(self, bill: Mapping[str, float]) -> None:
        """These seconds, by job, are on the accounts; `spent` holds those that are not."""
        for job_id, seconds in bill.items():
            self._joules.pop(job_id, None)
            left = self.spent.pop(job_id) - seconds
            if left > 0:
                self.spent[job_id] = left

    def _tracked(self, message: Mapping[str, Any]) -> Tracked | None:
        job = self.jobs.get(message["id"])
        return job if job is not None and job.lease.epoch == message["epoch"] else None

    def _progress(self, job: Tracked, message: Mapping[str, Any]) -> None:
        if message["is"] == "preview":
            job.news = "preview"
            return
        job.turned = job.turned or job.stage != message["stage"] or (not job.news and job.done == 0)
        job.stage, job.done, job.total = message["stage"], message["done"], message["total"]
        job.news = job.news or "progress"

    def _measure(self, now: float) -> None:
        """The unit that ends now was of the stage that was last told."""
        if self.blamed:
            self._took.setdefault(self.stage, deque(maxlen=RECENT)).append(now - self._began)
        self._began = now

    # --- leases -------------------------------------------------------------------------------------------------------

    @property
    def allowance(self) -> float:
        """Seconds that the engine may take from here without a word."""
        stage = self.stage if self.blamed else ""
        slowest = max(self._took.get(stage, ()), default=self._lease if stage == "load" else 0.0)
        return max(self._lease, SLACK * slowest)

    @property
    def hangs(self) -> bool:
        """It has not moved for nearly as long as its jobs' leases last; or, without jobs, says nothing at all."""
        silence = 0.9 * self.allowance if self.jobs else max(IDLE_SILENCE, self.allowance)
        return self.ready and self._clock() - self._moved > silence

    @property
    def turned(self) -> bool:
        """A job has entered another stage, which is worth writing down at once."""
        return any(job.turned for job in self.jobs.values())

    def moves(self) -> list[Move]:
        """Progress to be written down, beginning now."""
        self._asked, seconds = self._clock(), self.allowance
        return [
            Move(job.lease, job.stage, job.done, job.total, seconds, job.news) for job in self.jobs.values() if job.news
        ]

    def waiting(self) -> list[LeaseRef]:
        """Leases to be renewed because the engine has moved, though not on these jobs: their turn comes."""
        if self._moved <= self._renewed or self._clock() - self._renewed < self._lease / 4:
            return []
        return [job.lease for job in self.jobs.values()]

    def written(self, moves: list[Move], renewed: list[LeaseRef]) -> None:
        """These writes reached the store."""
        for lease in (*(move.lease for move in moves), *renewed):
            job = self.jobs.get(lease.id)
            if job is not None and job.lease == lease:
                job.until = self._asked + self.allowance  # the store counts from when it was asked, or a moment later
        for move in moves:
            job = self.jobs.get(move.lease.id)
            if job is not None and (job.stage, job.done) == (move.stage, move.done):
                job.news, job.turned = "", False
        if renewed:
            self._renewed = self._asked

    def abandon(self, lease: LeaseRef) -> None:
        """The lease is lost: the process is to forget the job."""
        self.jobs.pop(lease.id, None)
        self.tell({"do": "abandon", "id": lease.id, "epoch": lease.epoch})

    def overdue(self) -> list[LeaseRef]:
        """Leases that could not be renewed and are about to end: the process must not go on as if it had them.

        Any thread may ask.
        """
        margin = max(0.5, self._lease / 10)
        return [job.lease for job in tuple(self.jobs.values()) if self._clock() > job.until - margin]

    # --- death --------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid or 0

    @property
    def ended(self) -> bool:
        """The process is no more."""
        return self.process.exitcode is not None

    @property
    def blamed(self) -> list[str]:
        """The jobs that the process was working on: several where they share a network call."""
        return [job for job in self.turn if job in self.jobs]

    @property
    def epitaph(self) -> str:
        """How the process ended, in words."""
        code = self.process.exitcode
        if code is not None and code < 0:
            try:
                return f"killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"killed by signal {-code}"
        return f"exit code {code}"

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.join()
