"""Retries, history, dependencies, groups and pools over real HTTP: each refusal its own line, and nothing changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from served import Served, error, submit

from perrin import wire


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_job_that_came_to_nothing_is_tried_again_as_another(served: Served, ann: httpx.Client) -> None:
    first = submit(ann, radius=2)
    refused = ann.post(f"/jobs/{first['id']}/retry")
    assert (refused.status_code, error(refused)["kind"]) == (409, "Conflict")
    assert "is queued: it can be tried again once it has come to nothing" in error(refused)["message"]
    job = served.run(finish=False)
    served.store.fail(job.lease, "invalid", "no")
    assert ann.get("/jobs?dead=true").json()[0]["id"] == job.id
    answer = ann.post(f"/jobs/{job.id}/retry")
    again = wire.JobRecord(**answer.json())
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/jobs/{again.id}")
    assert (again.retry_of, again.state, again.parameters) == (job.id, "queued", first["parameters"])
    assert job.id not in {dead["id"] for dead in ann.get("/jobs?dead=true").json()}
    second = ann.post(f"/jobs/{job.id}/retry")
    assert (second.status_code, again.id in error(second)["message"]) == (409, True)
    both = ann.get("/jobs?dead=true&state=failed")
    assert (both.status_code, error(both)["field"]) == (422, "dead")


def test_a_history_tells_of_attempts(served: Served, ann: httpx.Client) -> None:
    submit(ann)
    job = served.run()
    (attempt,) = [wire.AttemptRecord(**found) for found in ann.get(f"/jobs/{job.id}/history").json()]
    assert (attempt.epoch, attempt.owner, attempt.worker, attempt.state) == (1, "o", "w", "succeeded")
    assert [stage.name for stage in attempt.stages] == ["step"]
    assert attempt.ended_at is not None


def test_a_job_waits_for_its_time_and_its_parents(served: Served, ann: httpx.Client) -> None:
    later = ann.post("/jobs", json={"modality": "dots", "run_after": soon(60), "deadline": soon(90)}).json()
    assert (later["state"], later["position"]) == ("waiting", None)
    ann.post(f"/jobs/{later['id']}/cancel")
    parent = submit(ann)
    asked = {"modality": "dots", "parents": [{"job": parent["id"], "parameter": "start"}]}
    child = ann.post("/jobs", json=asked).json()
    assert (child["state"], child["parents"]) == ("waiting", [{"job": parent["id"], "parameter": "start", "item": 0}])
    served.run()
    made = ann.get(f"/jobs/{parent['id']}").json()["artifacts"][0]["id"]
    fed = ann.get(f"/jobs/{child['id']}").json()
    assert (fed["state"], fed["parameters"]["start"]) == ("queued", made)


def test_a_group_is_submitted_seen_and_cancelled(served: Served, ann: httpx.Client, bob: httpx.Client) -> None:
    jobs = [{"modality": "dots", "name": "a"}, {"modality": "dots", "parents": [{"job": "a", "parameter": "start"}]}]
    key = {"Idempotency-Key": "group"}
    first, second = (ann.post("/groups", json={"jobs": jobs, "label": "two"}, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    group = wire.GroupRecord(**first.json())
    assert wire.GroupRecord(**second.json()).id == group.id
    assert dict(group.states) == {"queued": 1, "waiting": 1}
    assert [job.parents for job in group.jobs] == [[], [wire.Parent(job=group.jobs[0].id, parameter="start")]]
    assert ann.get("/groups").json()[0] == group.model_dump(mode="json") | {"jobs": []}
    for path in (f"/groups/{group.id}", "/groups/none"):
        assert bob.get(path).status_code == 404
    assert bob.post(f"/groups/{group.id}/cancel").status_code == 404
    assert bob.get("/groups").json() == []
    assert ann.post(f"/groups/{group.id}/cancel").json()["states"] == {"cancelled": 2}
    assert ann.post(f"/groups/{group.id}/cancel").status_code == 409
    other = ann.post("/groups", json={"jobs": jobs[:1]}, headers=key)
    assert (other.status_code, error(other)["kind"]) == (409, "Conflict")


DOT = {"modality": "dots"}
BAD_GROUPS: list[tuple[Any, str, str]] = [
    ({"jobs": []}, "jobs", "at least 1"),
    ({"jobs": [DOT] * 1001}, "jobs", "at most 1000"),
    ({"jobs": [DOT | {"parameters": {"radius": 0}}]}, "jobs.0.radius", "at least 1 and at most 16"),
    ({"jobs": [DOT, {"modality": "x"}]}, "jobs.1.modality", "wanted one of"),
    ({"jobs": [DOT | {"group": "g"}]}, "jobs.0.group", "a group of their own"),
    ({"jobs": [DOT | {"name": "a"}] * 2}, "name", "no other job of the group"),
    ({"jobs": [DOT | {"name": "a", "parents": [{"job": "a"}]}]}, "parents", "waits for itself"),
    ({"jobs": [DOT | {"parents": [{"job": "nobody"}]}]}, "parents", "the id of one of your jobs"),
    ({"jobs": [DOT | {"parents": [{"job": "a", "parameter": "sides"}]}]}, "jobs.0.parents.parameter", "a parameter of"),
    ({"jobs": [DOT | {"parents": [{"job": "a", "parameter": "radius"}]}]}, "jobs.0.parents.parameter", "start, more"),
    (
        {"jobs": [DOT | {"parameters": {"start": "x"}, "parents": [{"job": "a", "parameter": "start"}]}]},
        "jobs.0.start",
        "it takes what job a makes",
    ),
    ({"jobs": [DOT], "label": "a\0b"}, "label", "without null"),
    ({"jobs": [DOT | {"name": "a\0b"}]}, "jobs.0.name", "without null"),
    ({"jobs": [DOT | {"parents": [{"job": "a\0b"}]}]}, "jobs.0.parents", "without null"),
    ({"jobs": DOT}, "jobs", "list"),
]


@pytest.mark.parametrize(("body", "field", "words"), BAD_GROUPS, ids=[f"{i}-{b[1]}" for i, b in enumerate(BAD_GROUPS)])
def test_a_bad_group_is_one_line_and_nothing_of_it_is_stored(
    served: Served, ann: httpx.Client, body: Any, field: str, words: str
) -> None:
    before = [row[:3] for row in served.store.counts()]
    answer = ann.post("/groups", json=body)
    assert answer.status_code == 422, answer.text
    assert error(answer)["field"] == field
    assert words in error(answer)["message"]
    assert [row[:3] for row in served.store.counts()] == before


def test_pools_are_paused_drained_and_resumed_by_operators_alone(served: Served, ann: httpx.Client) -> None:
    submit(ann)
    refused = ann.post("/pools/dots", json={"action": "pause"})
    assert (refused.status_code, error(refused)["kind"]) == (401, "NotAllowed")
    served.store.people.add("olga", operator=True)
    with served.client("olga") as olga:
        paused = olga.post("/pools/dots", json={"action": "pause", "reason": "full"}).json()
        assert (paused["state"], paused["reason"], paused["states"]["queued"]) == ("paused", "full", 1)
        assert served.store.claim("o", "w", ["dots"], 1, 30.0) == ()
        assert next(pool for pool in ann.get("/pools").json() if pool["name"] == "dots") == paused
        assert olga.post("/pools/dots", json={"action": "pause"}).status_code == 409
        olga.post("/pools/dots", json={"action": "drain"}).raise_for_status()
        answer = ann.post("/jobs", json=DOT)
        assert (answer.status_code, "is draining" in error(answer)["message"]) == (409, True)
        olga.post("/pools/dots", json={"action": "resume"}).raise_for_status()
        for path, body, field in (
            ("/pools/dost", {"action": "pause"}, "pool"),
            ("/pools/dots", {"action": "stop"}, "action"),
            ("/pools/dots", {"action": "pause", "reason": "x" * 201}, "reason"),
            ("/pools/dots", {}, "action"),
        ):
            bad = olga.post(path, json=body)
            assert (bad.status_code, error(bad)["field"]) == (422, field)


def test_a_job_tells_of_its_children_and_a_key_of_its_user(
    served: Served, ann: httpx.Client, bob: httpx.Client
) -> None:
    parent = ann.post("/jobs", json={"modality": "dots"}).json()
    assert parent["children"] == []
    below = [
        ann.post("/jobs", json={"modality": "dots", "parents": [{"job": parent["id"]}]}).json()["id"] for _ in range(2)
    ]
    assert ann.get(f"/jobs/{parent['id']}").json()["children"] == below
    assert ann.get("/me").json() == {"name": "ann", "operator": False}
    assert bob.get("/me").json()["name"] == "bob"
    ann.post(f"/jobs/{parent['id']}/cancel").raise_for_status()
