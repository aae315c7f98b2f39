"""The store's laws, each on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perrin.errors import Conflict, InvalidInput, NotAllowed, NotFound, Unreachable
from perrin.wire import JobState
from perrin_orchestration.store import (
    CancelRequested,
    Job,
    JobStore,
    LeaseRef,
    Move,
    NewArtifact,
    NewJob,
    StaleLease,
    User,
    Worker,
)
from perrin_orchestration.store.jobs import CRASHES_ALLOWED

New = Callable[..., NewJob]
FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {"seed": 1})


def claim(store: JobStore, owner: str = "owner", limit: int = 1) -> Job:
    (job,) = store.claim(owner, "worker", ["dots"], limit, 30.0)
    return job


def running(store: JobStore, new: New) -> Job:
    store.submit(new())
    job = claim(store)
    store.start(job.lease)
    return job


def test_a_submitted_job_is_queued_with_its_hint_and_its_first_event(store: JobStore, new: New) -> None:
    job, fresh = store.submit(new(label="mine", priority=3))
    assert fresh
    assert (job.state, job.label, job.priority, job.user) == (JobState.QUEUED, "mine", 3, "ann")
    assert job.parameters == {"radius": 3, "prompt": "a dot"}
    assert [(event.number, event.kind, event.state) for event in store.events(job.id)] == [(1, "state", "queued")]
    assert list(store.pending_hints()) == ["dots"]


def test_one_idempotency_key_makes_one_job_per_user(store: JobStore, new: New) -> None:
    first, fresh = store.submit(new(idempotency_key="k", request_sha256="x"))
    again, fresh_again = store.submit(new(idempotency_key="k", request_sha256="x"))
    assert (fresh, fresh_again) == (True, False)
    assert again == first
    other = store.people.add("bob")
    assert store.submit(new(idempotency_key="k", request_sha256="x", user_id=other.id))[1]
    with pytest.raises(Conflict, match=f"belongs to job {first.id}"):
        store.submit(new(idempotency_key="k", request_sha256="y"))


def test_submit_many_stores_all_or_none(store: JobStore, new: New) -> None:
    store.submit(new(idempotency_key="taken"))
    with pytest.raises(Conflict, match="nothing was submitted"):
        store.submit_many([new(), new(idempotency_key="taken")])
    assert store.queued() == 1
    jobs = store.submit_many([new(priority=i) for i in range(5)])
    assert [job.priority for job in jobs] == [0, 1, 2, 3, 4]
    assert store.queued() == 6
    assert store.submit_many([]) == ()


def test_a_hint_stands_for_the_rows_that_were_there_when_it_was_sent(store: JobStore, new: New) -> None:
    store.submit(new())
    pending = store.pending_hints()
    store.submit(new())
    store.hinted("dots", pending["dots"])
    assert store.pending_hints()["dots"] > pending["dots"]
    store.hinted("dots", store.pending_hints()["dots"])
    assert store.pending_hints() == {}
    assert store.queued_pools() == ("dots",)


def test_claims_take_higher_priority_first_then_older(store: JobStore, new: New, clock: Callable[[], float]) -> None:
    low, high, older = (store.submit(new(priority=p))[0] for p in (-1, 5, 0))
    younger = store.submit(new())[0]
    store.submit(new(pool="elsewhere"))
    store.submit(new(run_after=clock() + 60, priority=100))
    assert [store.position(job) for job in (high, older, younger, low)] == [0, 1, 2, 3]
    claimed = store.claim("o", "w", ["dots"], 10, 30.0)
    assert [job.id for job in claimed] == [high.id, older.id, younger.id, low.id]
    assert all((job.epoch, job.attempts, job.owner, job.state) == (1, 1, "o", "leased") for job in claimed)
    assert store.claim("o", "w", ["dots"], 10, 30.0) == ()
    assert store.claim("o", "w", [], 10, 30.0) == ()


def test_a_job_goes_its_way_and_every_step_is_an_event(store: JobStore, new: New) -> None:
    job = running(store, new)
    store.progress([Move(job.lease, "step", 3, 10, 30.0)])
    store.committing(job.lease)
    store.commit(job.lease, [FILE, FILE])
    done = store.get(job.id)
    assert (done.state, done.owner, done.worker, done.stage) == (JobState.SUCCEEDED, None, "worker", "step")
    assert done.finished_at is not None
    events = store.events(job.id)
    assert [event.state.value for event in events] == [
        "queued", "leased", "running", "running", "committing", "succeeded",
    ]  # fmt: skip
    assert [event.number for event in events] == list(range(1, 7))
    assert store.events(job.id, after=4) == events[4:]
    first, second = store.artifacts([job.id])[job.id]
    assert (first.name, first.sha256, first.items, first.metadata) == ("0.pgm", "a" * 64, (0,), {"seed": 1})
    assert first.id != second.id


def test_a_repeated_commit_does_nothing_and_says_so(store: JobStore, new: New) -> None:
    job = running(store, new)
    store.committing(job.lease)
    store.commit(job.lease, [FILE])
    store.commit(job.lease, [FILE])  # the reply to the first was lost
    assert len(store.artifacts([job.id])[job.id]) == 1


WRITES: dict[str, Callable[[JobStore, LeaseRef], None]] = {
    "start": lambda s, ref: s.start(ref),
    "progress": lambda s, ref: s.progress([Move(ref, "step", 9, 9, 30.0)]),
    "renew": lambda s, ref: s.renew([ref], 30.0),
    "save": lambda s, ref: s.save(ref, "b" * 64),
    "committing": lambda s, ref: s.committing(ref),
    "commit": lambda s, ref: s.commit(ref, [FILE]),
    "fail": lambda s, ref: s.fail(ref, "error", "no"),
    "cancelled": lambda s, ref: s.cancelled(ref),
    "release": lambda s, ref: s.release(ref),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("stage", ["leased", "running", "committing"])
def test_a_stale_owner_cannot_write(store: JobStore, new: New, clock: Any, write: str, stage: str) -> None:
    old = running(store, new)
    clock.now += 31
    store.expire_leases()
    present = claim(store, "another")
    assert present.epoch == old.epoch + 1
    if stage != "leased":
        store.start(present.lease)
    if stage == "committing":
        store.committing(present.lease)
    before, events = store.get(old.id), store.events(old.id)
    for ref in (old.lease, LeaseRef(old.id, present.epoch, old.owner or ""), LeaseRef(old.id, old.epoch, "another")):
        with pytest.raises(StaleLease) as refused:
            WRITES[write](store, ref)
        assert refused.value.refs == (ref,)
    assert store.get(old.id) == before
    assert store.events(old.id) == events
    assert store.artifacts([old.id]) == {old.id: ()}


def test_one_lost_lease_does_not_stop_the_others_progress(store: JobStore, new: New) -> None:
    store.submit_many([new(), new()])
    kept, lost = store.claim("o", "w", ["dots"], 2, 30.0)
    store.release(lost.lease)
    with pytest.raises(StaleLease) as refused:
        store.progress([Move(lost.lease, "step", 1, 2, 30.0), Move(kept.lease, "step", 1, 2, 30.0)])
    assert refused.value.refs == (lost.lease,)
    assert store.get(kept.id).stage == "step"


def test_progress_and_renewal_extend_the_lease(store: JobStore, new: New, clock: Any) -> None:
    job = running(store, new)
    clock.now += 29
    store.progress([Move(job.lease, "step", 1, 2, 30.0)])
    clock.now += 29
    store.renew([job.lease], 30.0)
    clock.now += 29
    assert store.expire_leases() == ()
    clock.now += 2
    (expired,) = store.expire_leases()
    assert (expired.id, expired.state, expired.crashes) == (job.id, JobState.QUEUED, 1)
    assert store.expire_leases() == ()


def test_a_job_is_quarantined_after_three_crashes(store: JobStore, new: New, clock: Any) -> None:
    job = store.submit(new())[0]
    for crash in range(1, CRASHES_ALLOWED + 1):
        claim(store, f"owner{crash}")
        if crash == 2:
            clock.now += 31
            store.expire_leases()
        else:
            store.crashed(f"owner{crash}", [job.id], "killed by SIGSEGV")
        assert store.get(job.id).crashes == crash
    end = store.get(job.id)
    assert (end.state, end.error_kind) == (JobState.QUARANTINED, "crash")
    assert "died 3 times (last: killed by SIGSEGV)" in (end.error_message or "")
    assert store.claim("o", "w", ["dots"], 1, 30.0) == ()


def test_a_crash_counts_only_for_the_job_that_was_worked_on(store: JobStore, new: New) -> None:
    store.submit_many([new(), new()])
    guilty, beside = store.claim("o", "w", ["dots"], 2, 30.0)
    store.start(beside.lease)
    store.crashed("o", [guilty.id], "exit code 1")
    assert [(store.get(job.id).state, store.get(job.id).crashes) for job in (guilty, beside)] == [
        (JobState.QUEUED, 1),
        (JobState.QUEUED, 0),
    ]


def test_cancel_is_at_once_while_queued_and_a_flag_while_held(store: JobStore, new: New, ann: User) -> None:
    queued = store.submit(new())[0]
    assert store.cancel(queued.id, ann.id).state is JobState.CANCELLED
    with pytest.raises(Conflict, match="has cancelled already"):
        store.cancel(queued.id, ann.id)
    job = running(store, new)
    flagged = store.cancel(job.id, ann.id)
    assert (flagged.state, flagged.cancel_requested) == (JobState.RUNNING, True)
    assert store.cancellations(["owner"]) == (job.lease,)
    with pytest.raises(Conflict, match="asked to stop already"):
        store.cancel(job.id, ann.id)
    with pytest.raises(CancelRequested):
        store.committing(job.lease)
    store.cancelled(job.lease)
    assert store.get(job.id).state is JobState.CANCELLED
    assert store.cancellations(["owner"]) == ()


def test_a_cancel_before_the_commit_wins_and_after_it_loses(store: JobStore, new: New, ann: User) -> None:
    early, late = running(store, new), running(store, new)
    for job in (early, late):
        store.committing(job.lease)
    store.cancel(early.id, ann.id)
    with pytest.raises(CancelRequested):
        store.commit(early.lease, [FILE])
    assert store.artifacts([early.id]) == {early.id: ()}
    store.commit(late.lease, [FILE])
    with pytest.raises(Conflict, match="has succeeded already"):
        store.cancel(late.id, ann.id)


def test_a_cancelled_job_whose_process_died_is_not_run_again(store: JobStore, new: New, ann: User, clock: Any) -> None:
    job = running(store, new)
    store.cancel(job.id, ann.id)
    clock.now += 31
    store.expire_leases()
    assert store.get(job.id).state is JobState.CANCELLED


def test_a_released_job_keeps_its_saved_state_and_counts_no_crash(store: JobStore, new: New) -> None:
    job = running(store, new)
    store.save(job.lease, "c" * 64)
    store.release(job.lease)
    again = claim(store, "another")
    assert (again.saved_sha256, again.crashes, again.epoch, again.attempts) == ("c" * 64, 0, 2, 2)


def test_a_job_still_queued_at_its_deadline_fails(store: JobStore, new: New, clock: Any) -> None:
    job = store.submit(new(deadline=clock() + 10))[0]
    clock.now += 11
    assert store.claim("o", "w", ["dots"], 1, 30.0) == ()
    store.expire_leases()
    assert (store.get(job.id).state, store.get(job.id).error_kind) == (JobState.FAILED, "deadline")


def test_two_reconcilers_at_once_make_no_difference(store: JobStore, store_url: str, new: New, clock: Any) -> None:
    jobs = [store.submit(new())[0] for _ in range(20)]
    store.claim("o", "w", ["dots"], 20, 30.0)
    clock.now += 31
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: store.expire_leases(), range(4)))
    assert sorted(job.id for batch in found for job in batch) == sorted(job.id for job in jobs)
    assert {store.get(job.id).crashes for job in jobs} == {1}


def test_users_see_their_own_jobs_only(store: JobStore, new: New, ann: User) -> None:
    bob = store.people.add("bob")
    job = running(store, new)
    store.committing(job.lease)
    store.commit(job.lease, [FILE])
    artifact = store.artifacts([job.id])[job.id][0]
    for look in (
        lambda: store.get(job.id, bob.id),
        lambda: store.cancel(job.id, bob.id),
        lambda: store.artifact(artifact.id, bob.id),
    ):
        with pytest.raises(NotFound):
            look()
    assert store.list(bob.id) == ()
    assert store.artifact(artifact.id, ann.id) == artifact


def test_lists_are_filtered_and_paged(store: JobStore, new: New, ann: User) -> None:
    jobs = [store.submit(new(label=f"no {i}", parameters={"prompt": "Red 100%_apple!"}))[0] for i in range(7)]
    other = store.submit(new(modality="other", pool="other"))[0]
    assert [job.id for job in store.list(ann.id)] == [other.id, *(job.id for job in reversed(jobs))]
    page = store.list(ann.id, modality="dots", limit=3)
    assert [job.label for job in page] == ["no 6", "no 5", "no 4"]
    page = store.list(ann.id, modality="dots", limit=3, before=page[-1].id)
    assert [job.label for job in page] == ["no 3", "no 2", "no 1"]
    assert [job.label for job in store.list(ann.id, search="NO 3")] == ["no 3"]
    assert len(store.list(ann.id, search="100%_APPLE!")) == 7
    assert store.list(ann.id, search="100%%apple") == ()
    store.cancel(jobs[0].id, ann.id)
    assert [job.id for job in store.list(ann.id, state=JobState.CANCELLED)] == [jobs[0].id]


def test_api_keys_are_hashed_and_revoked(store: JobStore, ann: User) -> None:
    from perrin_orchestration.store import rows
    from perrin_orchestration.store.people import new_api_key

    key = new_api_key()
    store.people.allow(ann, key)
    store.people.allow(ann, key)
    assert store.people.who(key) == ann
    stored = store.database.read(lambda c: rows.select(c, "SELECT * FROM api_keys"))
    assert len(stored) == 1
    assert key not in str(stored)
    with pytest.raises(NotAllowed):
        store.people.who(key + "x")
    store.people.revoke(key)
    with pytest.raises(NotAllowed):
        store.people.who(key)
    assert store.people.add("ann") == ann


def test_workers_come_are_lost_and_forgotten(store: JobStore, new: New, ann: User, clock: Any) -> None:
    me = Worker("worker", "host", 1, "cpu", "dots", "idle", ("dots-1",), clock(), clock(), memory_mb=10.5)
    assert store.workers.seen(me) is False
    job = running(store, new)
    (seen,) = store.workers.all(ann.id)
    assert (seen.models, seen.memory_mb, seen.jobs) == (("dots-1",), 10.5, (job.id,))
    assert store.workers.all(store.people.add("bob").id)[0].jobs == ()
    assert store.workers.live() == 1
    assert store.workers.drain("worker")
    assert not store.workers.drain("nobody")
    assert store.workers.seen(me) is True
    clock.now += 60
    assert store.workers.live() == 0
    assert store.workers.lose() == ("worker",)
    assert store.workers.all(ann.id)[0].state == "lost"
    clock.now += 3600
    store.workers.lose()
    assert store.workers.all(ann.id) == ()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="PERRIN_DATABASE_URL"):
        JobStore(url)


def test_a_database_that_is_away_is_unreachable_and_no_password_is_told() -> None:
    store = JobStore("postgresql://u:secret@127.0.0.1:9/x?connect_timeout=2", patience=0.1)
    with pytest.raises(Unreachable) as away:
        store.queued()
    assert "secret" not in away.value.message
    assert "\n" not in away.value.message
    store.close()
