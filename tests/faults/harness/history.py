"""What was seen: the clients' calls and their answers, the faults, and what is in the store when all is over."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Call", "End", "Fault", "Held", "History", "canonical"]


def canonical(parameters: Mapping[str, Any]) -> str:
    """Parameters as text that is equal when they are."""
    return json.dumps(dict(parameters), sort_keys=True)


@dataclass(frozen=True)
class Call:
    """One request of a client, sent once, and what came back.

    Attributes:
        at, until: when it was sent and when the answer came, in seconds since 1970.
        what: ``submit`` or ``cancel``.
        key: the Idempotency-Key of a submit, the job's id of a cancel.
        answer: ``acknowledged``, ``refused`` (a clear no) or ``unknown`` (none came, or nobody could know).
        job: the job's id, from an answer.
        asked: parameters of a submit, as `canonical` text.
        note: what a refusal said.
    """

    at: float
    until: float
    what: str
    key: str
    answer: str
    job: str = ""
    asked: str = ""
    note: str = ""


@dataclass(frozen=True)
class Held:
    """A job that a victim held when the fault struck: under ``epoch``, its lease until ``lease_until``."""

    job: str
    epoch: int
    lease_until: float


@dataclass(frozen=True)
class Fault:
    """Something that was broken.

    Attributes:
        at: when, in seconds since 1970.
        kind: what, such as ``kill engine`` or ``restart database``.
        victim: whom it hit.
        held: the jobs whose holder it ended, or stopped.
        until: when it was mended; for a kill, `at`.
    """

    at: float
    kind: str
    victim: str = ""
    held: tuple[Held, ...] = ()
    until: float = 0.0


@dataclass(frozen=True)
class End:
    """The store when all is over: rows as they are, and of each artifact the hash of the bytes that a user gets.

    Attributes:
        jobs, events, artifacts: rows of the tables.
        bytes: SHA-256 of what the gateway answers, by the artifact's id; empty where it answers an error.
    """

    jobs: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    artifacts: tuple[Mapping[str, Any], ...] = ()
    bytes: Mapping[str, str] = field(default_factory=dict)


class History:
    """Everything that a run has seen. Written by several threads.

    Attributes:
        hits: how often faults have ended or stopped the process of a job, by the job's id.
        oracle: hashes of the files that an undisturbed run makes, by `canonical` parameters.
        harmful: ids of jobs that crash their own process.
        clocks_moved: events carry the times of clocks that were wrong, so nothing can be said of recovery.
        restart_seconds: how long a worker takes to start; recovery may have to wait for one.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.hits: Counter[str] = Counter()
        self.oracle: dict[str, tuple[str, ...]] = {}
        self.harmful: set[str] = set()
        self.clocks_moved = False
        self.restart_seconds = 0.0
        self.end = End()
        self._lock = threading.Lock()

    def called(self, call: Call) -> Call:
        """Write a call down."""
        with self._lock:
            self.calls.append(call)
        return call

    def broke(self, kind: str, victim: str = "", held: tuple[Held, ...] = (), since: float | None = None) -> Fault:
        """Write a fault down that began at ``since``, or just now, and is mended now."""
        now = time.time()
        fault = Fault(now if since is None else since, kind, victim, held, now)
        with self._lock:
            self.faults.append(fault)
            self.hits.update(one.job for one in held)
        return fault

    def write(self, path: Path) -> None:
        """Keep it for whoever wonders, as JSON."""
        everything = {
            "calls": [asdict(call) for call in self.calls],
            "faults": [asdict(fault) for fault in self.faults],
            "oracle": self.oracle,
            "jobs": [dict(row) for row in self.end.jobs],
            "events": [dict(row) for row in self.end.events],
            "artifacts": [dict(row) for row in self.end.artifacts],
            "bytes": dict(self.end.bytes),
        }
        path.write_text(json.dumps(everything, indent=1, default=str))
