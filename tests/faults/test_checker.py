"""The judge finds what is planted, and nothing in a history without fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from harness.checker import Verdict, judge
from harness.history import Call, End, Fault, Held, History, canonical

PARAMETERS = {"seed": 1, "steps": 3}
FILES = ("a" * 64, "b" * 64)


def event(number: int, state: str, epoch: int, at: float, owner: str | None = "one") -> dict[str, Any]:
    return {"job_id": "j", "number": number, "state": state, "epoch": epoch, "at": at, "owner": owner}


def artifact(number: int, sha256: str) -> dict[str, Any]:
    return {"id": f"f{number}", "job_id": "j", "number": number, "sha256": sha256}


def story() -> History:
    """A job was submitted, its worker was killed at 10 s, another took it over at 12 s and ended it at 13 s."""
    history = History()
    history.called(Call(1.0, 1.1, "submit", "k", "unknown", "", canonical(PARAMETERS)))
    history.called(Call(1.2, 1.3, "submit", "k", "acknowledged", "j", canonical(PARAMETERS)))
    history.faults.append(Fault(10.0, "kill engine", "worker-1", (Held("j", 1, 11.5),), 10.0))
    history.oracle[canonical(PARAMETERS)] = FILES
    job = {"id": "j", "idempotency_key": "k", "parameters": PARAMETERS, "state": "succeeded", "owner": None}
    events = (
        event(1, "queued", 0, 1.3, None),
        event(2, "leased", 1, 9.0),
        event(3, "running", 1, 9.1),
        event(4, "queued", 1, 11.6, None),
        event(5, "leased", 2, 12.0, "two"),
        event(6, "running", 2, 12.1, "two"),
        event(7, "committing", 2, 12.9, "two"),
        event(8, "succeeded", 2, 13.0, None),
    )
    made = tuple(artifact(number, sha256) for number, sha256 in enumerate(FILES))
    history.end = End((job,), events, made, {row["id"]: row["sha256"] for row in made})
    return history


def changed(**values: Any) -> Verdict:
    history = story()
    history.end = replace(history.end, **values)
    return judge(history)


def with_job(**values: Any) -> Verdict:
    return changed(jobs=({**story().end.jobs[0], **values},))


def with_events(*more: dict[str, Any]) -> Verdict:
    return changed(events=(*story().end.events, *more))


def test_a_history_without_fault_is_found_to_be_one() -> None:
    verdict = judge(story())
    assert verdict.ok, str(verdict)
    assert verdict.recoveries == [2.0]
    assert (verdict.submitted, verdict.states, verdict.faults) == (1, {"succeeded": 1}, {"kill engine": 1})


def test_a_lost_job_is_found() -> None:
    assert changed(jobs=(), events=(), artifacts=()).lost
    assert with_job(parameters={"seed": 2, "steps": 3}).lost
    assert with_job(state="running", owner="two").lost


def test_a_second_job_under_one_key_is_found() -> None:
    jobs = story().end.jobs
    assert changed(jobs=(*jobs, {**jobs[0], "id": "other"})).duplicated
    history = story()
    history.called(Call(2.0, 2.1, "submit", "k", "acknowledged", "other", canonical(PARAMETERS)))
    assert judge(history).duplicated


def test_a_second_end_and_a_life_after_it_are_found() -> None:
    assert with_events(event(9, "failed", 2, 13.1)).duplicated
    assert with_events(event(9, "running", 2, 13.1)).duplicated


def test_a_second_result_is_found() -> None:
    made = story().end.artifacts
    assert changed(artifacts=(*made, {**made[0], "id": "f9"})).duplicated
    assert with_job(state="failed").duplicated
    assert changed(artifacts=()).duplicated


def test_a_stale_write_is_found() -> None:
    late = [dict(row) for row in story().end.events]
    late[6] = event(7, "committing", 1, 12.9)
    assert changed(events=tuple(late)).stale
    two = [dict(row) for row in story().end.events]
    two[5] = event(6, "running", 2, 12.1, "one")
    assert changed(events=tuple(two)).stale


def test_other_bytes_are_found() -> None:
    made = story().end.artifacts
    assert changed(bytes={"f0": FILES[0], "f1": ""}).wrong
    other = "c" * 64
    assert changed(artifacts=(made[0], artifact(1, other)), bytes={"f0": FILES[0], "f1": other}).wrong
    assert changed(artifacts=made[:1]).wrong


def test_a_slow_recovery_is_found_unless_something_was_away() -> None:
    late = [dict(row) | ({"at": row["at"] + 30} if row["number"] > 3 else {}) for row in story().end.events]
    history = story()
    history.end = replace(history.end, events=tuple(late))
    assert judge(history).slow
    history.faults.append(Fault(9.0, "restart database", "server", (), 38.0))
    assert judge(history).ok


def test_a_job_that_never_came_back_is_lost_not_slow() -> None:
    history = story()
    row = {**history.end.jobs[0], "state": "queued"}
    history.end = replace(history.end, jobs=(row,), events=history.end.events[:4], artifacts=())
    assert judge(history).lost


def test_a_quarantine_that_nobody_earned_is_found() -> None:
    events = [dict(row) for row in story().end.events[:4]]
    events[3] |= {"state": "quarantined"}

    def end(history: History) -> History:
        row = {**history.end.jobs[0], "state": "quarantined"}
        history.end = replace(history.end, jobs=(row,), events=tuple(events), artifacts=())
        return history

    assert judge(end(story())).unjust
    earned = end(story())
    earned.faults += [Fault(at, "kill engine", "", (Held("j", 1, 11.5),), at) for at in (8.0, 9.0)]
    assert judge(earned).ok
    orphan = end(story())  # two kills; and a supervisor that died just before its engine claimed
    orphan.faults += [Fault(8.0, "kill engine", "", (Held("j", 1, 11.5),), 8.0)]
    orphan.faults += [Fault(8.9, "kill supervisor", "", (Held("other", 1, 11.5),), 8.9)]
    other = {**event(1, "leased", 1, 8.5), "job_id": "other", "worker": "w"}
    told = [{**row, "worker": "w"} for row in orphan.end.events]
    orphan.end = replace(orphan.end, events=(other, *told))
    assert not judge(orphan).unjust
    before = end(story())
    before.faults[1:] = [fault for fault in orphan.faults[1:] if fault.kind != "kill supervisor"]
    assert judge(before).unjust
    harmful = end(story())
    harmful.harmful.add("j")
    assert judge(harmful).ok


@pytest.mark.parametrize(
    ("answer", "state", "fine"),
    [("acknowledged", "succeeded", False), ("refused", "succeeded", True), ("unknown", "succeeded", True)],
)
def test_a_cancel_that_was_acknowledged_and_came_to_nothing_is_found(answer: str, state: str, fine: bool) -> None:
    history = story()
    history.called(Call(12.0, 12.1, "cancel", "j", answer, "j"))
    assert judge(history).ok is fine
    assert history.end.jobs[0]["state"] == state


def test_a_cancel_that_nobody_asked_for_and_gaps_in_events_are_found() -> None:
    events = [dict(row) for row in story().end.events]
    events[7] |= {"state": "cancelled"}
    row = {**story().end.jobs[0], "state": "cancelled"}
    assert changed(jobs=(row,), events=tuple(events), artifacts=()).wrong
    assert changed(events=story().end.events[1:]).wrong


def test_a_refused_submit_that_made_a_job_is_found() -> None:
    history = story()
    history.calls = [replace(call, answer="refused", job="") for call in history.calls]
    assert judge(history).wrong
