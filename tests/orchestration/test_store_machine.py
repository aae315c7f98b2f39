"""The store against a model of it: whatever users, workers, crashes and the clock do, P1 to P4 hold.

P1 what was submitted is there. P2 one terminal state, once. P3 at most one committed result. P4 a stale owner cannot
write.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from perrin.errors import Conflict
from perrin.wire import JobState
from perrin_orchestration.store import CancelRequested, JobStore, LeaseRef, Move, NewArtifact, NewJob, StaleLease
from perrin_orchestration.store.jobs import CRASHES_ALLOWED

FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})


@dataclass
class Known:
    """What the model knows of a job."""

    state: str = "queued"
    epoch: int = 0
    owner: str | None = None
    until: float = 0.0
    crashes: int = 0
    cancel: bool = False
    ends: list[str] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Rules are what anybody can do to the store, in any order, with leases old and new."""

    template: Path
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.folder / "perrin.db")
        self.now = 1_800_000_000.0
        self.store = JobStore(f"sqlite:///{self.folder / 'perrin.db'}", clock=lambda: self.now)
        with self.store.database.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
        self.user = self.store.people.add("ann").id
        self.known: dict[str, Known] = {}
        self.owners = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def end(self, job: Known, state: str) -> None:
        job.state, job.owner = state, None
        job.ends.append(state)

    def holds(self, lease: LeaseRef) -> bool:
        job = self.known[lease.id]
        return (job.epoch, job.owner) == (lease.epoch, lease.owner)

    @rule(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        new = NewJob(self.user, "dots", "dots-1", {}, "pgm", "dots")
        for job in self.store.submit_many([new] * count):
            self.known[job.id] = Known()

    @rule(target=leases, limit=st.integers(1, 3))
    def claim(self, limit: int) -> object:
        self.owners += 1
        claimed = self.store.claim(f"o{self.owners}", "w", ["dots"], limit, 30.0)
        queued = [job for job in self.known.values() if job.state == "queued"]
        assert len(claimed) == min(limit, len(queued))
        for job in claimed:
            known = self.known[job.id]
            assert known.state == "queued"
            known.state, known.epoch, known.owner, known.until = "leased", known.epoch + 1, job.owner, self.now + 30
            assert job.epoch == known.epoch
        return multiple(*(job.lease for job in claimed))

    def write(self, lease: LeaseRef, action: str, allowed: bool) -> bool:
        """Try a write; whether it went through, which it must exactly if the model allows it."""
        write = {
            "start": self.store.start,
            "progress": lambda ref: self.store.progress([Move(ref, "step", 1, 2, 30.0)]),
            "committing": self.store.committing,
            "commit": lambda ref: self.store.commit(ref, [FILE]),
            "fail": lambda ref: self.store.fail(ref, "error", "no"),
            "cancelled": self.store.cancelled,
            "release": self.store.release,
        }[action]
        try:
            write(lease)
        except (StaleLease, CancelRequested):
            assert not allowed
            return False
        assert allowed
        return True

    @rule(lease=leases, action=st.sampled_from(["start", "progress", "committing"]))
    def advance(self, lease: LeaseRef, action: str) -> None:
        job, held = self.known[lease.id], self.holds(lease)
        allowed = (
            held
            and {
                "start": job.state == "leased",
                "progress": True,
                "committing": job.state == "running" and not job.cancel,
            }[action]
        )
        if self.write(lease, action, allowed):
            job.state = {"start": "running", "committing": "committing"}.get(action, job.state)
            job.until = self.now + 30 if action == "progress" else job.until

    @rule(lease=leases)
    def commit(self, lease: LeaseRef) -> None:
        job = self.known[lease.id]
        first = self.holds(lease) and job.state == "committing" and not job.cancel
        repeat = job.state == "succeeded" and job.epoch == lease.epoch
        if self.write(lease, "commit", first or repeat) and first:
            self.end(job, "succeeded")

    @rule(lease=leases, action=st.sampled_from(["fail", "cancelled", "release"]))
    def finish(self, lease: LeaseRef, action: str) -> None:
        job = self.known[lease.id]
        if self.write(lease, action, self.holds(lease)):
            if action == "release":
                job.state, job.owner = "queued", None
            else:
                self.end(job, {"fail": "failed", "cancelled": "cancelled"}[action])

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.known:
            return
        job_id = data.draw(st.sampled_from(list(self.known)))
        job = self.known[job_id]
        try:
            self.store.cancel(job_id, self.user)
        except Conflict:
            assert job.ends or job.cancel
            return
        assert not job.ends
        if job.state == "queued":
            self.end(job, "cancelled")
        job.cancel = True

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        touched = {job.id for job in self.store.expire_leases()}
        expired = {i for i, job in self.known.items() if job.owner is not None and job.until < self.now}
        assert touched == expired
        for job_id in expired:
            self.take_back(self.known[job_id], counts=True)

    @rule(lease=leases, blame=st.booleans())
    def process_dies(self, lease: LeaseRef, blame: bool) -> None:
        self.store.crashed(lease.owner, [lease.id] if blame else [], "killed")
        for job_id, job in self.known.items():
            if job.owner == lease.owner:
                self.take_back(job, counts=blame and job_id == lease.id)

    def take_back(self, job: Known, counts: bool) -> None:
        job.crashes += counts
        if job.crashes >= CRASHES_ALLOWED:
            self.end(job, "quarantined")
        elif job.cancel:
            self.end(job, "cancelled")
        else:
            job.state, job.owner = "queued", None

    @invariant()
    def store_agrees(self) -> None:
        for job_id, known in getattr(self, "known", {}).items():
            job = self.store.get(job_id)
            assert (job.state.value, job.epoch, job.owner, job.crashes) == (
                known.state, known.epoch, known.owner, known.crashes,
            )  # fmt: skip
            events = self.store.events(job_id)
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert [event.state.value for event in events if event.state.terminal] == known.ends
            assert len(known.ends) <= 1
            assert len(self.store.artifacts([job_id])[job_id]) == (job.state is JobState.SUCCEEDED)


@pytest.mark.usefixtures("sqlite_template")
def test_whatever_happens_the_promises_hold(sqlite_template: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    StoreMachine.template = sqlite_template
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=slow),
    )
