"""Groups and dependencies: parents first, their artifacts by id, and one end for all that hangs on a lost parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from perrin.errors import Conflict, InvalidInput, NotFound
from perrin.wire import JobState
from perrin_orchestration.store import Done, Edge, Job, JobStore, NewArtifact, NewGroup, NewJob, User

New = Callable[..., NewJob]
FILES = tuple(NewArtifact(f"{i}.pgm", "image/x-portable-graymap", 5, "a" * 64, (i,), {}) for i in range(2))


def run(store: JobStore, *expected: str, files: tuple[NewArtifact, ...] = FILES) -> list[Job]:
    """Carry out whatever can be claimed now."""
    jobs = store.claim("o", "w", ["dots"], 10, 30.0)
    assert sorted(job.name or "" for job in jobs) == sorted(expected)
    leases = [job.lease for job in jobs]
    store.start(*leases)
    store.committing(*leases)
    store.commit_many([Done(lease, files) for lease in leases])
    return list(jobs)


def chain(new: New, *names: str, parameter: str = "image") -> list[NewJob]:
    jobs = [new(name=names[0])]
    for before, name in pairwise(names):
        jobs.append(new(name=name, parents=[Edge(before, parameter, 1)]))
    return jobs


def states(store: JobStore, jobs: tuple[Job, ...] | list[Job]) -> list[str]:
    return [store.get(job.id).state.value for job in jobs]


def test_a_chain_runs_parents_first_and_passes_artifacts_by_id(store: JobStore, new: New, ann: User) -> None:
    group, jobs, fresh = store.submit_group(NewGroup(ann.id, chain(new, "picture", "film", "sound"), "a chain"))
    assert fresh
    assert (group.label, dict(group.states)) == ("a chain", {"queued": 1, "waiting": 2})
    assert list(store.pending_hints().values()) == [1], "one hint, for the one that can run"
    for name, child in (("picture", jobs[1]), ("film", jobs[2])):
        (job,) = run(store, name)
        made = store.artifacts([job.id])[job.id]
        assert store.get(child.id).state is JobState.QUEUED
        assert store.get(child.id).parameters["image"] == made[1].id
    run(store, "sound")
    group, _ = store.group(group.id, ann.id)
    assert dict(group.states) == {"succeeded": 3}
    assert [found.id for found in store.groups(ann.id)] == [group.id]
    assert store.parents([jobs[1].id])[jobs[1].id] == (Edge(jobs[0].id, "image", 1),)


def test_children_may_be_listed_before_their_parents_and_have_several(store: JobStore, new: New, ann: User) -> None:
    child = new(name="c", parents=[Edge("a", "left"), Edge("b", "right"), Edge("b")])
    _, jobs, _ = store.submit_group(NewGroup(ann.id, [child, new(name="b"), new(name="a")]))
    assert [job.name for job in jobs] == ["c", "b", "a"]
    leases = {job.name: job.lease for job in store.claim("o", "w", ["dots"], 10, 30.0)}
    store.start(*leases.values())
    store.committing(*leases.values())
    store.commit(leases["a"], FILES)
    assert store.get(jobs[0].id).state is JobState.WAITING
    store.commit(leases["b"], FILES)
    done = store.get(jobs[0].id)
    assert done.state is JobState.QUEUED
    assert [done.parameters["left"], done.parameters["right"]] == [
        store.artifacts([job.id])[job.id][0].id for job in (jobs[2], jobs[1])
    ]


def test_a_parent_that_is_done_feeds_its_child_at_once(store: JobStore, new: New, clock: Any) -> None:
    parent = store.submit(new())[0]
    run(store, "")
    child = store.submit(new(parents=[Edge(parent.id, "image")]))[0]
    assert child.state is JobState.QUEUED
    assert child.parameters["image"] == store.artifacts([parent.id])[parent.id][0].id
    later = store.submit(new(parents=[Edge(parent.id)], run_after=clock() + 9))[0]
    assert later.state is JobState.WAITING
    with pytest.raises(InvalidInput, match="wants artifact 7 of job"):
        store.submit(new(parents=[Edge(parent.id, "image", 7)]))


@pytest.mark.parametrize("end", ["fail", "cancel", "crash", "deadline"])
def test_what_hangs_on_a_lost_parent_ends_with_it(store: JobStore, new: New, ann: User, clock: Any, end: str) -> None:
    first, *rest = chain(new, "a", "b", "c")
    first = replace(first, deadline=clock() + 5 if end == "deadline" else None)
    _, jobs, _ = store.submit_group(NewGroup(ann.id, [first, *rest]))
    if end == "fail":
        (held,) = store.claim("o", "w", ["dots"], 1, 30.0)
        store.fail(held.lease, "invalid", "no")
    elif end == "cancel":
        store.cancel(jobs[0].id, ann.id)
    elif end == "crash":
        for _ in range(3):
            (held,) = store.claim("o", "w", ["dots"], 1, 30.0)
            store.crashed("o", [held.id], "killed")
    else:
        clock.now += 6
        store.expire_leases()
    below = "cancelled" if end == "cancel" else "failed"
    assert states(store, jobs)[1:] == [below, below]
    for child, parent in ((jobs[1], jobs[0]), (jobs[2], jobs[1])):
        found = store.get(child.id)
        assert (found.error_kind, parent.id in (found.error_message or "")) == ("parent", True)
        assert [event.state.value for event in store.events(child.id)] == ["waiting", below]


def test_a_child_that_wants_more_than_was_made_fails_and_the_parent_does_not(store: JobStore, new: New) -> None:
    parent = store.submit(new())[0]
    child = store.submit(new(parents=[Edge(parent.id, "image", 1)]))[0]
    run(store, "", files=FILES[:1])
    assert states(store, [parent, child]) == ["succeeded", "failed"]
    assert "wants artifact 1 of job" in (store.get(child.id).error_message or "")


def test_a_retry_takes_along_what_ended_for_its_sake(store: JobStore, new: New, ann: User) -> None:
    side = new(name="side", parents=[Edge("a"), Edge("other")])
    group, jobs, _ = store.submit_group(NewGroup(ann.id, [*chain(new, "a", "b", "c"), new(name="other"), side]))
    for job in store.claim("o", "w", ["dots"], 10, 30.0):
        store.start(job.lease)
        if job.name == "a":
            store.fail(job.lease, "invalid", "no")
        else:
            store.committing(job.lease)
            store.commit(job.lease, FILES)
    with pytest.raises(Conflict, match=r"a parent, has failed already: `perrin retry"):
        store.retry(jobs[1].id, ann.id)
    again = store.retry(jobs[0].id, ann.id)
    made = [job for job in store.group(group.id, ann.id)[1] if job.retry_of is not None]
    assert sorted(job.name or "" for job in made) == ["a", "b", "c", "side"]
    assert (again.name, again.state) == ("a", JobState.QUEUED)
    assert store.dead(ann.id) == ()
    for names in (["a"], ["b", "side"], ["c"]):
        run(store, *names)
    assert set(states(store, made)) == {"succeeded"}
    for job in made:
        if job.name in ("b", "c"):
            assert store.get(job.id).parameters["image"] in {
                artifact.id for found in store.artifacts(other.id for other in made).values() for artifact in found
            }


def test_a_group_is_cancelled_whole(store: JobStore, new: New, ann: User) -> None:
    group, jobs, _ = store.submit_group(NewGroup(ann.id, [*chain(new, "a", "b", "c"), new(name="d")]))
    (held,) = store.claim("o", "w", ["dots"], 1, 30.0)
    with pytest.raises(NotFound, match="there is no group"):
        store.cancel_group(group.id, store.people.add("bob").id)
    assert store.cancel_group(group.id, ann.id) == 4
    store.cancelled(held.lease)
    assert set(states(store, jobs)) == {"cancelled"}
    with pytest.raises(Conflict, match="nothing to cancel"):
        store.cancel_group(group.id, ann.id)


def test_one_key_makes_one_group(store: JobStore, new: New, ann: User) -> None:
    asked = NewGroup(ann.id, chain(new, "a", "b"), "", "k", "x")
    first, jobs, fresh = store.submit_group(asked)
    second, same, again = store.submit_group(asked)
    assert (fresh, again, first, jobs) == (True, False, second, same)
    with pytest.raises(Conflict, match=f"belongs to group {first.id}"):
        store.submit_group(replace(asked, request_sha256="y"))
    added = store.submit(new(group_id=first.id, parents=[Edge(jobs[0].id)]))[0]
    assert [job.id for job in store.group(first.id, ann.id)[1]] == [*(job.id for job in jobs), added.id]


BAD: dict[str, tuple[Callable[[New], list[NewJob]], str]] = {
    "circle": (
        lambda new: [new(name="a", parents=[Edge("b")]), new(name="b", parents=[Edge("a")])],
        "waits for itself",
    ),
    "itself": (lambda new: [new(name="a", parents=[Edge("a")])], "got 'a -> a', wanted no job that waits for itself"),
    "unknown": (lambda new: [new(name="a"), new(name="b", parents=[Edge("nobody")])], "got 'nobody', wanted the id of"),
    "twice": (lambda new: [new(name="a"), new(name="a")], "a name that no other job of the group has"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_group_is_one_line_and_nothing_is_stored(store: JobStore, new: New, ann: User, case: str) -> None:
    jobs, words = BAD[case]
    with pytest.raises(InvalidInput, match=words) as refused:
        store.submit_group(NewGroup(ann.id, jobs(new)))
    assert "\n" not in refused.value.message
    assert (store.list(ann.id), store.groups(ann.id), store.pending_hints()) == ((), (), {})


def test_parents_and_groups_are_ones_own(store: JobStore, new: New, ann: User) -> None:
    bob = store.people.add("bob")
    theirs, _, _ = store.submit_group(NewGroup(bob.id, [new(user_id=bob.id)]))
    job = store.list(bob.id)[0]
    for bad in (new(parents=[Edge(job.id)]), new(group_id=theirs.id)):
        with pytest.raises(InvalidInput, match="the id of one of your"):
            store.submit(bad)
    with pytest.raises(NotFound):
        store.group(theirs.id, ann.id)
    assert (store.list(ann.id), store.groups(ann.id)) == ((), ())
    store.cancel(job.id, bob.id)
    with pytest.raises(Conflict, match="has cancelled already"):
        store.submit(new(user_id=bob.id, parents=[Edge(job.id)]))


def test_a_job_is_kept_while_a_child_lives_that_takes_its_artifacts(store: JobStore, new: New, clock: Any) -> None:
    parent = store.submit(new())[0]
    run(store, "")
    child = store.submit(new(parents=[Edge(parent.id, "image")]))[0]
    clock.now += 1e7
    assert store.keeper.clean(1, 1).jobs == ()
    run(store, "")
    clock.now += 1e7
    assert store.keeper.clean(1, 1).jobs == (parent.id, child.id)


def test_a_group_goes_with_the_last_of_its_jobs(store: JobStore, new: New, ann: User, clock: Any) -> None:
    store.submit_group(NewGroup(ann.id, chain(new, "a", "b")))
    run(store, "a")
    run(store, "b")
    clock.now += 1e7
    store.keeper.clean(1, 1, limit=1)
    assert len(store.groups(ann.id)) == 1
    store.keeper.clean(1, 1, limit=1)
    assert store.groups(ann.id) == ()
