"""The store against a model of it, on both databases: whatever users, workers, crashes and the clock do, P1 to P4 hold.

P1 what was submitted is there. P2 one terminal state, once. P3 at most one committed result. P4 a stale owner cannot
write.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from perrin.errors import Conflict, InvalidInput
from perrin.wire import JobState
from perrin_orchestration.store import CancelRequested, Edge, JobStore, LeaseRef, Move, NewArtifact, NewJob, StaleLease
from perrin_orchestration.store.models import ArtifactRow, Base, EventRow, JobRow
from perrin_orchestration.store.retrying import CRASHES_ALLOWED, pause_before

FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})


@dataclass
class Known:
    """What the model knows of a job."""

    state: str = "queued"
    epoch: int = 0
    owner: str | None = None
    until: float = 0.0
    crashes: int = 0
    retries: int = 0
    cancel: bool = False
    user: str = ""
    after: float = 0.0
    deadline: float = float("inf")
    late: bool = False
    parents: tuple[str, ...] = ()
    retried: bool = False
    ends: list[str] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Rules are what anybody can do to the store, in any order, with leases old and new."""

    make_store: Callable[[Callable[[], float]], JobStore]
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.now = 1_000_000.0
        self.store = type(self).make_store(lambda: self.now)
        self.users = [self.store.people.add(name).id for name in ("ann", "bob")]
        self.known: dict[str, Known] = {}
        self.owners = 0
        self.paused = False

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    def end(self, job_id: str, state: str) -> None:
        """A job ends, and with it whatever waits for it; or what waits for it has a parent fewer."""
        job = self.known[job_id]
        if job.ends:  # by another way to the same child
            return
        job.state, job.owner = state, None
        job.ends.append(state)
        children = {i: child for i, child in self.known.items() if job_id in child.parents and child.state == "waiting"}
        if state == "succeeded" and children:
            self.promote()  # whoever feeds a child lets everything go that is due
        for child_id in children if state != "succeeded" else ():
            self.end(child_id, "cancelled" if state == "cancelled" else "failed")

    def promote(self) -> None:
        for job in self.known.values():
            ready = all(self.known[parent].state == "succeeded" for parent in job.parents)
            if job.state == "waiting" and ready and job.after <= self.now:
                job.state = "queued"

    def holds(self, lease: LeaseRef) -> bool:
        job = self.known[lease.id]
        return (job.epoch, job.owner) == (lease.epoch, lease.owner)

    @rule(
        count=st.integers(1, 3),
        user=st.integers(0, 1),
        wait=st.sampled_from([0.0, 0.0, 5.0]),
        deadline=st.sampled_from([None, None, 25.0]),
        priority=st.integers(-3, 3),
    )
    def submit(self, count: int, user: int, wait: float, deadline: float | None, priority: int) -> None:
        after = self.now + wait if wait else 0.0
        until = None if deadline is None else self.now + deadline
        new = NewJob(
            self.users[user], "dots", "dots-1", {}, "pgm", "dots", run_after=after, deadline=until, priority=priority
        )
        for job in self.store.submit_many([new] * count):
            known = Known("waiting" if wait else "queued", user=self.users[user], after=after)
            known.deadline = until or float("inf")
            self.known[job.id] = known

    @rule(data=st.data(), user=st.integers(0, 1))
    def submit_child(self, data: st.DataObject, user: int) -> None:
        """Of up to two jobs, not always one's own."""
        if not self.known:
            return
        parents = tuple(data.draw(st.lists(st.sampled_from(list(self.known)), min_size=1, max_size=2, unique=True)))
        new = NewJob(self.users[user], "dots", "dots-1", {}, "pgm", "dots", parents=[Edge(p, "seed") for p in parents])
        known = [self.known[parent] for parent in parents]
        bad = any(job.ends and job.state != "succeeded" for job in known)
        foreign = any(job.user != self.users[user] for job in known)
        try:
            job, fresh = self.store.submit(new)
        except (InvalidInput, Conflict):
            assert bad or foreign
            return
        assert fresh
        assert not bad
        assert not foreign
        made = Known("waiting", user=self.users[user], parents=parents)
        if all(parent.state == "succeeded" for parent in known):
            made.state = "queued"
        self.known[job.id] = made

    @rule(target=leases, limit=st.integers(1, 3))
    def claim(self, limit: int) -> object:
        self.owners += 1
        claimed = self.store.claim(f"o{self.owners}", "w", ["dots"], limit, 30.0)
        queued = [job for job in self.known.values() if job.state == "queued" and job.deadline > self.now]
        assert len(claimed) == (0 if self.paused else min(limit, len(queued)))
        for job in claimed:
            known = self.known[job.id]
            assert known.state == "queued"
            known.state, known.epoch, known.owner, known.until = "leased", known.epoch + 1, job.owner, self.now + 30
            known.late = False
            assert job.epoch == known.epoch
        return multiple(*(job.lease for job in claimed))

    @rule()
    def pause_or_resume(self) -> None:
        if any(pool.name == "dots" for pool in self.store.pools.all()):
            self.store.pools.set("dots", "resume" if self.paused else "pause")
            self.paused = not self.paused

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if not self.known:
            return
        job_id = data.draw(st.sampled_from(list(self.known)))
        old = self.known[job_id]
        lost = any(self.known[p].ends and self.known[p].state != "succeeded" for p in old.parents)
        below = any(job_id in job.parents and job.state != "succeeded" for job in self.known.values())
        if lost or below:
            return  # trees of retries have their own tests
        try:
            job = self.store.retry(job_id, old.user)
        except Conflict:
            assert old.retried or not old.ends or old.state == "succeeded"
            return
        assert old.ends
        assert old.state != "succeeded"
        assert not old.retried
        old.retried = True
        waits = any(self.known[p].state != "succeeded" for p in old.parents)
        deadline = old.deadline if old.deadline > self.now else float("inf")
        made = Known("waiting" if waits else "queued", user=old.user, parents=old.parents, deadline=deadline)
        self.known[job.id] = made

    def write(self, lease: LeaseRef, action: str, allowed: bool) -> bool:
        """Try a write; whether it went through, which it must exactly if the model allows it."""
        write = {
            "start": self.store.start,
            "progress": lambda ref: self.store.progress([Move(ref, "step", 1, 2, 30.0)]),
            "committing": self.store.committing,
            "commit": lambda ref: self.store.commit(ref, [FILE]),
            "fail": lambda ref: self.store.fail(ref, "error", "no"),
            "fail for good": lambda ref: self.store.fail(ref, "invalid", "no"),
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
        allowed = held and {  # a repeat is no harm: the reply to the first one may have been lost
            "start": job.state in ("leased", "running"),
            "progress": True,
            "committing": job.state == "committing" or (job.state == "running" and not job.cancel),
        }[action]  # fmt: skip
        if self.write(lease, action, allowed):
            job.state = {"start": "running", "committing": "committing"}.get(action, job.state)
            job.until = self.now + 30 if action == "progress" else job.until

    @rule(lease=leases)
    def commit(self, lease: LeaseRef) -> None:
        job = self.known[lease.id]
        first = self.holds(lease) and job.state == "committing" and not job.cancel
        repeat = job.state == "succeeded" and job.epoch == lease.epoch
        if self.write(lease, "commit", first or repeat) and first:
            self.end(lease.id, "succeeded")

    @rule(lease=leases, action=st.sampled_from(["fail", "fail for good", "cancelled", "release"]))
    def finish(self, lease: LeaseRef, action: str) -> None:
        job = self.known[lease.id]
        if not self.write(lease, action, self.holds(lease)):
            return
        pause = pause_before("error", job.retries) if action == "fail" and not job.cancel else None
        if pause is not None and self.now + pause < job.deadline:
            job.state, job.owner, job.after = "waiting", None, self.now + pause
            job.retries += 1
        elif action in ("fail", "fail for good"):
            self.end(lease.id, "failed")
        elif action == "cancelled" or job.cancel:
            self.end(lease.id, "failed" if job.late else "cancelled")
        else:
            job.state, job.owner = "queued", None

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.known:
            return
        job_id = data.draw(st.sampled_from(list(self.known)))
        job = self.known[job_id]
        try:
            self.store.cancel(job_id, job.user)
        except Conflict:
            assert job.ends or job.cancel
            return
        assert not job.ends
        job.cancel = True
        if job.state in ("queued", "waiting"):
            self.end(job_id, "cancelled")

    @rule(seconds=st.sampled_from([1.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        touched = {job.id for job in self.store.expire_leases()}
        expired = {i for i, job in self.known.items() if job.owner is not None and job.until < self.now}
        late = {i for i, job in self.known.items() if not job.ends and job.deadline <= self.now}
        overdue = {i for i in late if self.known[i].owner is None}
        assert touched == expired | overdue
        for job_id in overdue:
            if not self.known[job_id].ends:
                self.end(job_id, "failed")
        for job_id in expired:
            self.take_back(job_id, counts=True)
        for job_id in late - overdue:
            job = self.known[job_id]
            if job.owner is not None and not job.cancel:
                job.cancel = job.late = True

    @rule()
    def reconciler_looks(self) -> None:
        waiting = sum(job.state == "waiting" for job in self.known.values())
        self.promote()
        assert self.store.promote() == waiting - sum(job.state == "waiting" for job in self.known.values())
        self.store.rest()

    @rule(lease=leases, blame=st.booleans())
    def process_dies(self, lease: LeaseRef, blame: bool) -> None:
        self.store.crashed(lease.owner, [lease.id] if blame else [], "killed")
        for job_id, job in self.known.items():
            if job.owner == lease.owner:
                self.take_back(job_id, counts=blame and job_id == lease.id)

    def take_back(self, job_id: str, counts: bool) -> None:
        job = self.known[job_id]
        job.crashes += counts
        if job.crashes >= CRASHES_ALLOWED:
            self.end(job_id, "quarantined")
        elif job.cancel:
            self.end(job_id, "failed" if job.late else "cancelled")
        else:
            job.state, job.owner = "queued", None

    @invariant()
    def store_agrees(self) -> None:
        if not getattr(self, "known", {}):
            return
        with self.store.database.engine.connect() as connection:
            jobs = connection.execute(sa.select(JobRow.id, JobRow.state, JobRow.epoch, JobRow.owner, JobRow.crashes))
            rows = {row.id: tuple(row)[1:] for row in jobs}
            ordered = sa.select(EventRow.job_id, EventRow.number, EventRow.state).order_by(
                EventRow.job_id, EventRow.number
            )
            events: dict[str, list[tuple[int, str]]] = {}
            for job_id, number, state in connection.execute(ordered):
                events.setdefault(job_id, []).append((number, state))
            artifacts = Counter(connection.scalars(sa.select(ArtifactRow.job_id)))
        assert rows == {i: (job.state, job.epoch, job.owner, job.crashes) for i, job in self.known.items()}
        for job_id, known in self.known.items():
            assert [number for number, _ in events[job_id]] == list(range(1, len(events[job_id]) + 1))
            assert [state for _, state in events[job_id] if JobState(state).terminal] == known.ends
            assert len(known.ends) <= 1
            assert artifacts[job_id] == (known.state == "succeeded")


def test_whatever_happens_the_promises_hold(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One database for all examples: each begins by emptying it, with the same ids, which decide between equals."""
    from hypothesis.stateful import run_state_machine_as_test

    ids = random.Random(0)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128), version=4))

    def make_store(clock: Callable[[], float]) -> JobStore:
        ids.seed(0)
        store = JobStore(store_url, clock=clock)
        with store.database.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
        if store.database.dialect == "sqlite":  # what is tested here is not the disk
            sa.event.listen(store.database.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF").close())
            store.database.engine.dispose()
        else:
            sa.event.listen(
                store.database.engine, "connect", lambda c, _: c.execute("SET synchronous_commit = off").close()
            )
            store.database.engine.dispose()
        return store

    StoreMachine.make_store = staticmethod(make_store)
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=slow),
    )
