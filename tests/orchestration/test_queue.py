"""Retries, deadlines, waiting, pools, history and retention: laws of the store, each on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perrin.errors import Conflict, InvalidInput, NotFound, UnknownName
from perrin.wire import JobState
from perrin_orchestration.store import CancelRequested, Job, JobStore, Move, NewArtifact, NewJob, User
from perrin_orchestration.store.keeping import DAY
from perrin_orchestration.store.retrying import RETRIES, pause_before

New = Callable[..., NewJob]
FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})


def claim(store: JobStore, owner: str = "owner") -> Job:
    (job,) = store.claim(owner, "worker", ["dots"], 1, 30.0)
    return job


def running(store: JobStore, new: New, **values: Any) -> Job:
    store.submit(new(**values))
    job = claim(store)
    store.start(job.lease)
    return job


def succeed(store: JobStore, job: Job, *files: NewArtifact) -> None:
    store.committing(job.lease)
    store.commit(job.lease, files)


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RETRIES)
def test_a_failure_that_may_pass_is_tried_again_after_growing_pauses(
    store: JobStore, new: New, clock: Any, kind: str
) -> None:
    job = running(store, new)
    pauses = []
    for retry in range(RETRIES[kind].times):
        store.save(job.lease, "c" * 64)
        store.fail(job.lease, kind, "no luck")
        waiting = store.get(job.id)
        assert (waiting.state, waiting.retries, waiting.error_kind) == (JobState.WAITING, retry + 1, kind)
        assert waiting.saved_sha256 == ("c" * 64 if kind == "storage" else None), "the state was not to blame"
        pauses.append(waiting.run_after - clock())
        clock.now = waiting.run_after - 0.01
        assert (store.promote(), store.claim("o", "w", ["dots"], 1, 30.0)) == (0, ())
        clock.now = waiting.run_after
        assert store.promote() == 1
        job = claim(store)
        assert job.error_kind is None
        store.start(job.lease)
    assert pauses == pytest.approx([RETRIES[kind].pause(retry) for retry in range(RETRIES[kind].times)])
    store.fail(job.lease, kind, "no luck")
    end = store.get(job.id)
    assert (end.state, end.error_kind, end.error_message) == (JobState.FAILED, kind, "no luck")
    assert sum("tried again in" in event.message for event in store.events(job.id)) == len(pauses)


@pytest.mark.parametrize("kind", ["degenerate", "invalid", "deadline"])
def test_a_failure_that_would_come_again_is_final(store: JobStore, new: New, kind: str) -> None:
    job = running(store, new)
    store.fail(job.lease, kind, "no")
    assert store.get(job.id).state is JobState.FAILED
    assert pause_before(kind, 0) is None


def test_a_job_that_was_asked_to_stop_or_would_be_too_late_is_not_tried_again(
    store: JobStore, new: New, ann: User, clock: Any
) -> None:
    stopping = running(store, new)
    store.cancel(stopping.id, ann.id)
    store.fail(stopping.lease, "storage", "full")
    late = running(store, new, deadline=clock() + 5)
    store.fail(late.lease, "storage", "full")
    assert [store.get(job.id).state for job in (stopping, late)] == [JobState.FAILED] * 2


def test_a_job_that_is_tried_again_keeps_its_place(store: JobStore, new: New, clock: Any) -> None:
    first = running(store, new)
    clock.now += 10
    store.submit(new())
    store.fail(first.lease, "error", "once")
    clock.now += 2
    store.promote()
    assert claim(store).id == first.id


# --- times ------------------------------------------------------------------------------------------------------------


def test_a_job_waits_for_its_time_and_then_is_hinted(store: JobStore, new: New, clock: Any) -> None:
    job = store.submit(new(run_after=clock() + 10))[0]
    assert (job.state, store.position(job), store.pending_hints()) == (JobState.WAITING, None, {})
    assert store.queued_pools() == ()
    clock.now += 10
    assert store.promote() == 1
    assert store.get(job.id).state is JobState.QUEUED
    assert list(store.pending_hints()) == ["dots"]
    assert store.promote() == 0


def test_a_running_job_is_stopped_at_its_deadline_and_has_failed(store: JobStore, new: New, clock: Any) -> None:
    job = running(store, new, deadline=clock() + 10)
    clock.now += 11
    assert store.expire_leases() == ()
    assert store.cancellations(["owner"]) == (job.lease,)
    with pytest.raises(CancelRequested):
        store.committing(job.lease)
    store.cancelled(job.lease)
    end = store.get(job.id)
    assert (end.state, end.error_kind, end.error_message) == (JobState.FAILED, "deadline", "stopped at its deadline")


def test_a_dead_process_leaves_a_job_past_its_deadline_failed(store: JobStore, new: New, clock: Any) -> None:
    job = running(store, new, deadline=clock() + 10)
    clock.now += 11
    store.expire_leases()
    clock.now += 30
    store.expire_leases()
    assert (store.get(job.id).state, store.get(job.id).error_kind) == (JobState.FAILED, "deadline")


def test_what_is_released_after_it_was_asked_to_stop_has_stopped(store: JobStore, new: New, ann: User) -> None:
    job = running(store, new)
    store.cancel(job.id, ann.id)
    store.release(job.lease)
    assert store.get(job.id).state is JobState.CANCELLED


# --- dead letters -----------------------------------------------------------------------------------------------------


def test_dead_letters_are_what_came_to_nothing_and_was_not_tried_again(store: JobStore, new: New, ann: User) -> None:
    dead = []
    for _ in range(3):
        job = running(store, new)
        store.fail(job.lease, "invalid", "no")
        dead.append(job.id)
    succeed(store, running(store, new))
    store.cancel(store.submit(new())[0].id, ann.id)
    assert [job.id for job in store.dead(ann.id)] == dead[::-1]
    assert [job.id for job in store.dead(ann.id, before=dead[2], limit=1)] == [dead[1]]
    assert store.dead(store.people.add("bob").id) == ()
    again = store.retry(dead[1], ann.id)
    assert [job.id for job in store.dead(ann.id)] == [dead[2], dead[0]]
    assert (again.retry_of, again.state, again.parameters) == (dead[1], JobState.QUEUED, store.get(dead[1]).parameters)
    assert "another try of job " + dead[1] in store.events(again.id)[0].message


def test_a_retry_by_hand_is_refused_in_words(store: JobStore, new: New, ann: User) -> None:
    job = running(store, new)
    with pytest.raises(Conflict, match=f"job {job.id} is running: it can be tried again once it has come to nothing"):
        store.retry(job.id, ann.id)
    succeed(store, job)
    with pytest.raises(Conflict, match="has succeeded: submit it again"):
        store.retry(job.id, ann.id)
    failed = running(store, new)
    store.fail(failed.lease, "invalid", "no")
    with pytest.raises(NotFound):
        store.retry(failed.id, store.people.add("bob").id)
    with pytest.raises(NotFound):
        store.retry("nothing", ann.id)
    again = store.retry(failed.id, ann.id)
    with pytest.raises(Conflict, match=f"was tried again already, as job {again.id}"):
        store.retry(failed.id, ann.id)
    assert store.queued() == 1


# --- pools ------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_paused_pool_is_claimed_and_what_runs_goes_on(store: JobStore, new: New) -> None:
    job = running(store, new)
    waiting = store.submit(new())[0]
    pool = store.pools.set("dots", "pause", "the disk is full")
    assert (pool.state, pool.reason, dict(pool.states)) == ("paused", "the disk is full", {"running": 1, "queued": 1})
    assert store.claim("o", "w", ["dots"], 5, 30.0) == ()
    assert store.queued_pools() == ()
    succeed(store, job)
    store.submit(new())
    store.pools.set("dots", "resume")
    assert store.queued_pools() == ("dots",)
    assert claim(store).id == waiting.id


def test_a_draining_pool_takes_no_jobs_and_works_off_what_it_has(store: JobStore, new: New) -> None:
    job = store.submit(new())[0]
    store.pools.set("dots", "drain", "moving house")
    for submit in (lambda: store.submit(new()), lambda: store.submit_many([new()])):
        with pytest.raises(Conflict, match=r"pool dots is draining \(moving house\): it takes no jobs"):
            submit()
    store.submit(new(pool="other"))
    assert claim(store).id == job.id
    store.pools.set("dots", "resume")
    store.submit(new())


def test_a_blocked_pool_opens_again_and_what_an_operator_set_stays(store: JobStore, new: New) -> None:
    names = ("dots", "other", "third", "unheard-of")
    job = store.submit(new())[0]
    store.submit_many([new(pool="other"), new(pool="third")])
    store.pools.set("other", "pause", "moving house")
    store.pools.set("third", "drain")
    assert store.pools.block(names, "the disk is full " + "x" * 300) == ("dots",)
    assert store.pools.block(names, "again") == ()
    states = {pool.name: (pool.state, pool.reason[:16]) for pool in store.pools.all()}
    assert states["dots"] == ("blocked", "the disk is full")
    assert (states["other"], states["third"]) == (("paused", "moving house"), ("draining", ""))
    assert store.claim("o", "w", ["dots"], 5, 30.0) == ()
    assert store.queued_pools() == ("third",)
    late = store.submit(new())[0]
    assert store.pools.blocked(names) == ("dots",)
    assert store.pools.unblock(names) == ("dots",)
    assert [(pool.state, pool.reason) for pool in store.pools.all()][:2] == [("open", ""), ("paused", "moving house")]
    assert [claim(store).id, claim(store).id] == [job.id, late.id]
    store.pools.block(names, "full")
    assert store.pools.set("dots", "pause", "by hand").state == "paused"
    assert store.pools.unblock(names) == ()


def test_a_pool_is_changed_in_words_or_not_at_all(store: JobStore, new: New) -> None:
    with pytest.raises(UnknownName, match="no job was submitted yet"):
        store.pools.set("dots", "pause")
    store.submit(new())
    with pytest.raises(UnknownName, match="wanted one of dots"):
        store.pools.set("dost", "pause")
    with pytest.raises(InvalidInput, match="one of pause, drain, resume"):
        store.pools.set("dots", "stop")
    with pytest.raises(InvalidInput, match="at most 200"):
        store.pools.set("dots", "pause", "x" * 201)
    with pytest.raises(Conflict, match="is open already"):
        store.pools.set("dots", "resume")


# --- history ----------------------------------------------------------------------------------------------------------


def test_a_history_has_attempts_with_owners_stages_times_and_errors(store: JobStore, new: New, clock: Any) -> None:
    start = clock.now
    job = running(store, new)
    for stage, done in (("load", 1), ("step", 1), ("step", 5)):
        clock.now += 1
        store.progress([Move(job.lease, stage, done, 9, 30.0)])
    clock.now += 1
    store.fail(job.lease, "error", "bang")
    clock.now += 1
    store.promote()
    second = claim(store, "another")
    store.start(second.lease)
    (first, last) = store.history(job.id)
    assert (first.epoch, first.owner, first.worker) == (1, "owner", "worker")
    assert (first.claimed_at, first.started_at, first.ended_at) == (start, start, start + 4)
    assert (first.state, first.error_kind) == ("waiting", "error")
    assert first.message.startswith("bang (tried again in 1 s, 1 of")
    stages = [(stage.name, stage.began_at - start, (stage.ended_at or 0) - start, stage.done) for stage in first.stages]
    assert stages == [("load", 1, 2, 1), ("step", 2, 4, 5)]
    assert (last.epoch, last.owner, last.state, last.ended_at) == (2, "another", None, None)
    store.crashed("another", [job.id], "killed by SIGSEGV")
    assert [(a.state, a.message) for a in store.history(job.id)][1] == ("queued", "killed by SIGSEGV")
    assert store.history(store.submit(new())[0].id) == ()


# --- retention --------------------------------------------------------------------------------------------------------


def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(store: JobStore, new: New, ann: User, clock: Any) -> None:
    old, failed = running(store, new), running(store, new)
    succeed(store, old, FILE)
    store.fail(failed.lease, "invalid", "no")
    again = store.retry(failed.id, ann.id)
    clock.now += 10 * DAY
    recent = claim(store)
    store.start(recent.lease)
    succeed(store, recent, FILE, NewArtifact("1.pgm", "m", 5, "b" * 64, (1,), {}))
    assert store.keeper.clean(0, 0).jobs == ()
    assert store.keeper.clean(11, 0).jobs == ()
    assert store.keeper.clean(0, 9).jobs == (failed.id,)
    assert store.get(again.id).retry_of is None
    removed = store.keeper.clean(9, 0)
    assert removed.jobs == (old.id,)
    assert removed.hashes == (), "the younger result has the same bytes"
    for gone in (old, failed):
        with pytest.raises(NotFound):
            store.get(gone.id)
        assert (store.events(gone.id), store.artifacts([gone.id])) == ((), {gone.id: ()})
    clock.now += 10 * DAY
    assert store.keeper.clean(9, 9).hashes == ("a" * 64, "b" * 64)
    assert store.list(ann.id) == ()
    assert store.keeper.in_use(["a" * 64]) == frozenset()


def test_a_clean_up_is_done_in_pieces_oldest_first(store: JobStore, new: New, clock: Any) -> None:
    jobs = []
    for _ in range(3):
        job = running(store, new)
        succeed(store, job)
        jobs.append(job.id)
        clock.now += 1
    clock.now += 2 * DAY
    assert [store.keeper.clean(1, 1, limit=2).jobs for _ in range(3)] == [tuple(jobs[:2]), (jobs[2],), ()]
