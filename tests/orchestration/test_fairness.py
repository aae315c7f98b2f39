"""Fair share: whoever has had least is next, so GPU-seconds come out even, however many jobs and however long."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perrin.errors import InvalidInput, NotFound
from perrin_orchestration.store import JobStore, NewJob, User, Warmth, Worker
from perrin_orchestration.store.claiming import WAIT
from perrin_orchestration.store.fairness import AHEAD, Next, Standing, floor, turns

New = Callable[..., NewJob]


@given(
    st.dictionaries(
        st.sampled_from("abcde"),
        st.tuples(
            st.floats(0, 100), st.sampled_from([0.5, 1, 2]), st.floats(0, 10), st.integers(0, 3), st.integers(0, 9)
        ),
        max_size=5,
    ),
    st.integers(1, 20),
)
def test_turns_go_to_the_lowest_level_and_leave_no_place_empty(
    users: dict[str, tuple[float, float, float, int, int]], limit: int
) -> None:
    standings = {name: Standing(used, share, typical, held) for name, (used, share, typical, held, _) in users.items()}
    jobs = {name: [100 * i + n for n in range(user[4])] for i, (name, user) in enumerate(users.items())}
    asked: list[str] = []

    def available(name: str) -> Sequence[Next]:
        asked.append(name)
        return [Next(number) for number in jobs[name]]

    taken = list(turns(standings, available, limit))
    assert len(taken) == len(set(taken)) == min(limit, sum(len(line) for line in jobs.values()))
    assert len(asked) == len(set(asked))
    counts = {name: len([number for number in taken if number in jobs[name]]) for name in jobs}
    for name, line in jobs.items():
        assert [number for number in taken if number in line] == line[: counts[name]], "best first"
    ends = {name: standings[name].level + counts[name] * standings[name].cost for name in jobs}
    for one in jobs:
        for other in jobs:
            if counts[other] < len(jobs[other]) and counts[one] > 0:  # `other` could have had another turn
                assert ends[one] - standings[one].cost <= ends[other] + 1e-9


@given(
    st.lists(st.tuples(st.floats(0, 30), st.lists(st.booleans(), max_size=8)), min_size=1, max_size=5),
    st.integers(1, 30),
)
def test_a_warm_job_goes_first_only_within_its_bound(users: list[tuple[float, list[bool]]], limit: int) -> None:
    standings = {str(i): Standing(used) for i, (used, _) in enumerate(users)}
    lines = {str(i): [Next(100 * i + n, warm) for n, warm in enumerate(jobs)] for i, (_, jobs) in enumerate(users)}
    levels = {name: standing.level for name, standing in standings.items()}
    left = {name: list(line) for name, line in lines.items()}
    taken = list(turns(standings, lines.__getitem__, limit))
    assert len(taken) == min(limit, sum(map(len, lines.values())))
    for number in taken:
        user = str(number // 100)
        job = left[user].pop(0)
        assert job.number == number, "best first within one user"
        waiting = [levels[name] for name, line in left.items() if line and name != user]
        lowest = min(waiting, default=levels[user])
        assert levels[user] <= lowest + (AHEAD if job.warm else 0.0) + 1e-9
        levels[user] += standings[user].cost


def test_newcomers_begin_level() -> None:
    working, idle = Standing(7.0), Standing(1.0, active=False)
    assert floor([working, idle, Standing(9.0)], 9.0) == 7.0
    assert floor([idle], 9.0) == 9.0
    assert floor([idle, Standing(3.0, active=False)], None) == 3.0


def serve(
    store: JobStore, users: Sequence[User], seconds: Callable[[str], float], places: int, until: int
) -> dict[str, float]:
    """Let workers take ``until`` jobs; GPU-seconds by user while all had work."""
    had = {user.id: 0.0 for user in users}
    running: list[tuple[float, Any]] = []
    now = 0.0
    while until > 0:
        for job in store.claim("o", "w", ["dots"], min(places - len(running), until), 1e9):
            store.start(job.lease)
            running.append((now + seconds(job.user_id), job))
            until -= 1
        running.sort(key=lambda item: item[0])
        end, job = running.pop(0)
        now = end
        spent = seconds(job.user_id)
        store.charge({job.id: spent})
        had[job.user_id] += spent
        store.committing(job.lease)
        store.commit(job.lease, [])
    return had


def submit(store: JobStore, new: New, users: Sequence[User], counts: Sequence[int]) -> None:
    rng = random.Random(0)
    for user, count in zip(users, counts, strict=True):
        store.submit_many([new(user_id=user.id, priority=rng.randint(-100, 100)) for _ in range(count)])


@pytest.mark.parametrize("places", [1, 4])
def test_gpu_seconds_are_shared_whatever_is_submitted(store: JobStore, new: New, places: int) -> None:
    users = [store.people.add(name) for name in ("few", "some", "many")]
    submit(store, new, users, (12, 40, 120))
    length = {users[0].id: 1.0, users[1].id: 1.0, users[2].id: 1.0}
    had = serve(store, users, lambda user: length[user], places, 36)
    assert all(abs(seconds - 12) <= 1 for seconds in had.values()), had


def test_long_jobs_get_no_more_than_short_ones(store: JobStore, new: New) -> None:
    users = [store.people.add(name) for name in ("long", "short")]
    submit(store, new, users, (40, 200))
    length = {users[0].id: 5.0, users[1].id: 1.0}
    had = serve(store, users, lambda user: length[user], 1, 120)
    assert abs(had[users[0].id] - had[users[1].id]) <= 5.0, had


def test_a_share_of_two_is_twice_as_much(store: JobStore, new: New) -> None:
    users = [store.people.add(name) for name in ("one", "two")]
    store.people.share("two", 2.0)
    submit(store, new, users, (60, 60))
    had = serve(store, users, lambda _: 1.0, 1, 60)
    assert abs(had[users[0].id] - 20) <= 1
    shares = {account.user: account.share for account in store.people.accounts()}
    assert (shares["one"], shares["two"]) == (1.0, 2.0)
    for share, refused in ((0.0, InvalidInput), (float("nan"), InvalidInput), (101.0, InvalidInput)):
        with pytest.raises(refused, match=r"from 0\.01 to 100"):
            store.people.share("two", share)
    with pytest.raises(NotFound):
        store.people.share("nobody", 1.0)


def test_idle_time_is_not_saved_up(store: JobStore, new: New) -> None:
    early, late = store.people.add("early"), store.people.add("late")
    submit(store, new, [early, late], (80, 1))
    serve(store, [early, late], lambda _: 1.0, 1, 41)
    assert store.rest() == 1, "late has nothing left"
    submit(store, new, [late], (40,))
    had = serve(store, [early, late], lambda _: 1.0, 1, 20)
    assert abs(had[early.id] - 10) <= 1, had
    assert store.rest() == 0


def test_one_user_comes_by_priority_and_waiting_makes_up_for_it(store: JobStore, new: New, clock: Any) -> None:
    old = store.submit(new())[0]
    clock.now += 59
    urgent = store.submit(new(priority=1))[0]
    clock.now += 2
    later = store.submit(new(priority=1))[0]
    assert [job.id for job in store.claim("o", "w", ["dots"], 3, 30.0)] == [urgent.id, old.id, later.id]


def test_the_best_of_several_pools_comes_first(store: JobStore, new: New) -> None:
    jobs = [store.submit(new(priority=p, pool=pool))[0] for p, pool in ((1, "a"), (4, "b"), (3, "a"), (2, "b"))]
    claimed = store.claim("o", "w", ["a", "b"], 3, 30.0)
    assert [job.id for job in claimed] == [jobs[1].id, jobs[2].id, jobs[3].id]


def test_seconds_are_charged_to_a_job_whatever_has_become_of_it(store: JobStore, new: New, ann: User) -> None:
    job = store.submit(new())[0]
    (held,) = store.claim("o", "w", ["dots"], 1, 30.0)
    store.charge({job.id: 1.5})
    store.fail(held.lease, "invalid", "no")
    store.charge({job.id: 0.5, "gone": 9.0})
    store.charge({})
    assert store.get(job.id).gpu_seconds == 2.0
    assert store.people.accounts()[0].used == 2.0
    assert store.get(job.id).joules is None


def test_energy_is_charged_to_the_attempt_that_took_it_where_the_device_tells(store: JobStore, new: New) -> None:
    job = store.submit(new())[0]
    for seconds, joules in ((1.0, {}), (2.0, {job.id: 30.0})):
        (held,) = store.claim("o", "w", ["dots"], 1, 30.0)
        store.charge({job.id: seconds}, joules)
        store.charge({job.id: seconds}, joules)
        store.release(held.lease)
    assert (store.get(job.id).gpu_seconds, store.get(job.id).joules) == (6.0, 60.0)
    assert [(a.epoch, a.gpu_seconds, a.joules) for a in store.history(job.id)] == [(1, 2.0, None), (2, 4.0, 60.0)]


# --- models in memory -------------------------------------------------------------------------------------------------


def test_a_warm_job_overtakes_those_of_the_last_half_minute(store: JobStore, new: New, clock: Any) -> None:
    first = store.submit(new(model="cold"))[0]
    clock.now += 20
    second = store.submit(new(model="warm"))[0]
    clock.now += 20
    third = store.submit(new(model="warm"))[0]
    here = Warmth(frozenset({"warm"}))
    order = [store.claim("o", "w", ["dots"], 1, 30.0, here)[0].id for _ in range(3)]
    assert order == [second.id, first.id, third.id], "the third came too late to overtake the first"


def test_a_job_is_left_for_a_moment_to_who_has_its_model(store: JobStore, new: New, clock: Any) -> None:
    elsewhere = Warmth(frozenset({"mine"}), frozenset({"theirs"}))
    theirs, mine = store.submit(new(model="theirs"))[0], store.submit(new(model="mine"))[0]
    nobodys = store.submit(new(model="nobodys"))[0]
    assert [job.id for job in store.claim("o", "w", ["dots"], 9, 30.0, elsewhere)] == [mine.id, nobodys.id]
    assert store.claim("o", "w", ["dots"], 9, 30.0, elsewhere) == ()
    clock.now += WAIT
    assert [job.id for job in store.claim("o", "w", ["dots"], 9, 30.0, elsewhere)] == [theirs.id]


def test_a_user_with_a_warm_job_goes_ahead_by_ten_seconds_at_most(store: JobStore, ann: User, new: New) -> None:
    bob = store.people.add("bob")
    cold = [store.submit(new(model="cold"))[0] for _ in range(2)]
    warm = [store.submit(new(user_id=bob.id, model="warm"))[0] for _ in range(4)]
    here = Warmth(frozenset({"warm"}))
    taken = []
    for _ in range(6):
        (job,) = store.claim("o", "w", ["dots"], 1, 30.0, here)
        taken.append(job.id)
        store.charge({job.id: 6.0})
        store.start(job.lease)
        store.committing(job.lease)
        store.commit(job.lease, [])
    assert taken == [job.id for job in (warm[0], warm[1], cold[0], warm[2], cold[1], warm[3])]


def test_the_models_of_idle_workers_are_known(store: JobStore) -> None:
    for number, (state, models) in enumerate([("idle", ("a", "b")), ("busy", ("c",)), ("idle", ("d",))]):
        store.workers.seen(Worker(f"w{number}", "h", 1, "cpu", "dots", state, models, 0.0, 0.0))
    assert store.workers.warm("w2") == {"a", "b"}
