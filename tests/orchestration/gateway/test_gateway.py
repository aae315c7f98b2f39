"""The gateway over real HTTP: every bad input is one clear line, nothing of it is stored, and nobody sees another's."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, error, serve, submit

from perrin import wire
from perrin.settings import Settings
from perrin_orchestration.gateway.answers import MAX_BODY
from perrin_orchestration.store import JobStore, schema


def test_the_catalogue_is_served_from_the_plugins_faces(ann: httpx.Client) -> None:
    info = next(wire.ModalityInfo(**m) for m in ann.get("/modalities").json() if m["name"] == "dots")
    assert (info.view, info.formats, info.default_model) == ("image", ["pgm", "txt"], "dots-1")
    assert info.parameters["properties"]["radius"]["maximum"] == 16
    model = next(wire.ModelInfo(**m) for m in ann.get("/models").json() if m["name"] == "dots-1")
    assert (model.modality, model.defaults) == ("dots", {"steps": 10})


def test_health_is_open_and_everything_else_wants_a_key(served: Served) -> None:
    with httpx.Client(base_url=served.url + "/v1", trust_env=False, timeout=60) as nobody:
        health = wire.Health(**nobody.get("/health").json())
        assert (health.ok, health.schema_revision) == (True, schema.newest())
        for path in (
            "/modalities",
            "/models",
            "/jobs",
            "/jobs/x",
            "/jobs/x/events",
            "/artifacts/x",
            "/workers",
            "/pools",
            "/groups",
            "/groups/x",
            "/jobs/x/history",
            "/metrics",
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic key-of-ann"}):
                answer = nobody.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert error(answer)["kind"] == "NotAllowed"
        assert nobody.post("/jobs", json={"modality": "dots"}).status_code == 401


def test_a_submission_is_stored_with_every_default_written_out(ann: httpx.Client) -> None:
    record = wire.JobRecord(**submit(ann, radius=4))
    assert (record.state, record.model, record.format, record.position, record.user) == (
        wire.JobState.QUEUED, "dots-1", "pgm", 0, "ann",
    )  # fmt: skip
    assert record.parameters["steps"] == 10
    assert isinstance(record.parameters["seed"], int)
    assert wire.JobRecord(**ann.get(f"/jobs/{record.id}").json()) == record


BAD: list[tuple[Any, int, str, str]] = [
    ({"modality": "nothing"}, 422, "modality", "got 'nothing', wanted one of"),
    ({"modality": "dots", "parameters": {"model": "none-1"}}, 422, "model", "wanted one of dots-1"),
    ({"modality": "dots", "parameters": {"sampler": "magic"}}, 422, "sampler", "wanted one of"),
    ({"modality": "dots", "parameters": {"radius": 0}}, 422, "radius", "at least 1 and at most 16"),
    ({"modality": "dots", "parameters": {"steps": 0}}, 422, "steps", "at least 1 and at most 1000"),
    ({"modality": "dots", "parameters": {"steps": 10**6}}, 422, "steps", "at least 1 and at most 1000"),
    ({"modality": "dots", "parameters": {"prompt": "x" * 201}}, 422, "prompt", "0 to 200 characters"),
    ({"modality": "dots", "parameters": {"prompt": "a\0b"}}, 422, "prompt", "without null"),
    ({"modality": "dots", "parameters": {"sides": 3}}, 422, "sides", "no such parameter; dots takes"),
    ({"modality": "dots", "parameters": {"a\nb": 3}}, 422, "a\\nb", "no such parameter"),
    ({"modality": "dots", "parameters": {"\ud800": 3}}, 422, "dots", "wanted"),
    ({"modality": "dots", "parameters": {"prompt": "\ud800"}}, 422, "prompt", "got"),
    ({"modality": "dots", "label": "\ud800"}, 422, "label", "got"),
    ({"modality": "dots", "parameters": {"k" * 5000: 3}}, 422, "k" * 100 + "...", "kkk..."),
    ({"modality": "dots", "parameters": [1]}, 422, "parameters", "dictionary"),
    ({"modality": "dots", "format": "bmp"}, 422, "format", "one of pgm, txt"),
    ({"modality": "dots", "priority": 101}, 422, "priority", "less than or equal to 100"),
    ({"modality": "dots", "label": "x" * 201}, 422, "label", "at most 200"),
    ({"modality": "dots", "path": "/etc/passwd"}, 422, "path", "not permitted"),
    ({"modality": "dots", "run_after": "tomorrow"}, 422, "run_after", "datetime"),
    ({"modality": "dots", "run_after": "2030-01-01T00:00"}, 422, "run_after", "timezone"),
    ({"modality": "dots", "deadline": "2020-01-01T00:00Z"}, 422, "deadline", "a time in the future"),
    ({"modality": "dots", "run_after": "9998-01-01T00:00Z", "deadline": "9997-01-01T00:00Z"}, 422, "deadline", "after"),
    ({"modality": "dots", "parents": [{"job": "nobody"}]}, 422, "parents", "the id of one of your jobs"),
    ({"modality": "dots", "parents": [{"job": "x"}] * 33}, 422, "parents", "at most 32"),
    ({"modality": "dots", "parents": [{"job": "x", "item": -1}]}, 422, "parents.0.item", "greater than or equal to 0"),
    ({"modality": "dots", "parents": ["x"]}, 422, "parents.0", "dictionary"),
    (
        {"modality": "dots", "parents": [{"job": "x", "parameter": "model"}]},
        422,
        "parents.parameter",
        "takes a file: start, more",
    ),
    ({"modality": "dots", "group": "none"}, 422, "group", "the id of one of your groups"),
    ({"modality": "dots", "group": "a\0b"}, 422, "group", "without null"),
    ({}, 422, "modality", "required"),
    ([], 422, "body", "body"),
    ("{", 422, "body", "a JSON object"),
    ('{"modality": "dots", "parameters": {"guidance": NaN}}', 422, "guidance", "a finite number"),
    ("[" * 100_000, 422, "body", "body"),
    (b"\xff\xfe", 422, "body", "body"),
    ("x" * (MAX_BODY + 1), 413, "body", "1 MiB"),
]


@pytest.mark.parametrize(("body", "status", "field", "words"), BAD, ids=[f"{i}-{b[2]}" for i, b in enumerate(BAD)])
def test_bad_input_is_one_line_and_nothing_is_stored(
    served: Served, ann: httpx.Client, body: Any, status: int, field: str, words: str
) -> None:
    before = served.store.counts()
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = ann.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    told = error(answer)
    assert told["field"] == field
    assert words in told["message"]
    assert [row[:3] for row in served.store.counts()] == [row[:3] for row in before]


def test_a_body_of_unannounced_length_is_refused_as_well(ann: httpx.Client) -> None:
    answer = ann.post("/jobs", content=(b"x" * 4096 for _ in range(400)))
    assert (answer.status_code, error(answer)["field"]) == (413, "body")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/none", 404),
        ("/jobs/none/events", 404),
        ("/jobs/none/preview", 404),
        ("/jobs/%00", 404),
        ("/artifacts/..%2f..%2fperrin.db", 404),
        ("/nothing", 404),
        ("/jobs/none/history", 404),
        ("/groups/%00", 404),
        ("/groups?limit=0", 422),
        ("/jobs?dead=perhaps", 422),
        ("/jobs?dead=true&before=none", 404),
        ("/jobs?state=asleep", 422),
        ("/jobs?limit=0", 422),
        ("/jobs?limit=many", 422),
        ("/jobs?search=%00", 422),
        ("/jobs?before=none", 404),
    ],
)
def test_bad_addresses_are_one_line(ann: httpx.Client, path: str, status: int) -> None:
    answer = ann.get(path)
    assert answer.status_code == status
    error(answer)


def test_other_methods_are_one_line(ann: httpx.Client) -> None:
    answer = ann.delete("/jobs")
    assert answer.status_code == 405
    error(answer)


def test_one_idempotency_key_is_one_job(ann: httpx.Client, bob: httpx.Client) -> None:
    body = {"modality": "dots", "parameters": {"radius": 2, "prompt": "x"}}
    same = {"parameters": {"prompt": "x", "radius": 2}, "modality": "dots"}
    key = {"Idempotency-Key": "again"}
    first, second = (ann.post("/jobs", json=asked, headers=key) for asked in (body, same))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert bob.post("/jobs", json=body, headers=key).status_code == 201
    other = ann.post("/jobs", json={"modality": "dots"}, headers=key)
    assert (other.status_code, error(other)["kind"]) == (409, "Conflict")
    long = ann.post("/jobs", json=body, headers={"Idempotency-Key": "k" * 201})
    assert (long.status_code, error(long)["field"]) == (422, "Idempotency-Key")


def test_cancel_answers_by_state(served: Served, ann: httpx.Client) -> None:
    queued = submit(ann)
    assert ann.post(f"/jobs/{queued['id']}/cancel").json()["state"] == "cancelled"
    second = ann.post(f"/jobs/{queued['id']}/cancel")
    assert (second.status_code, error(second)["kind"]) == (409, "Conflict")
    submit(ann)
    job = served.run(finish=False)
    flagged = ann.post(f"/jobs/{job.id}/cancel").json()
    assert (flagged["state"], flagged["cancel_requested"]) == ("running", True)
    assert ann.post(f"/jobs/{job.id}/cancel").status_code == 409
    served.store.cancelled(job.lease)


def test_nobody_sees_anothers_jobs_events_previews_artifacts(
    served: Served, ann: httpx.Client, bob: httpx.Client
) -> None:
    submit(ann)
    job = served.run()
    served.artifacts.put_preview(job.lease, b"png")
    artifact = ann.get(f"/jobs/{job.id}").json()["artifacts"][0]["id"]
    paths = [f"/jobs/{job.id}", f"/jobs/{job.id}/events", f"/jobs/{job.id}/preview", f"/artifacts/{artifact}"]
    for path in paths:
        assert ann.get(path).status_code == 200
        assert bob.get(path).status_code == 404
    assert bob.post(f"/jobs/{job.id}/cancel").status_code == 404
    assert bob.get("/jobs").json() == [] or all(j["user"] == "bob" for j in bob.get("/jobs").json())
    assert bob.get(f"/jobs?before={job.id}").status_code == 404


def test_jobs_are_listed_searched_and_paged(ann: httpx.Client) -> None:
    ids = [submit(ann, prompt=f"paging {i}")["id"] for i in range(5)]
    page = ann.get("/jobs", params={"search": "PAGING", "limit": 2, "state": "queued"}).json()
    assert [job["id"] for job in page] == [ids[4], ids[3]]
    rest = ann.get("/jobs", params={"search": "paging", "before": ids[3]}).json()
    assert [job["id"] for job in rest] == [ids[2], ids[1], ids[0]]
    assert [job["position"] for job in rest] == [2, 1, 0]


def test_artifacts_are_served_safely_and_once(served: Served, ann: httpx.Client) -> None:
    submit(ann)
    record = wire.JobRecord(**ann.get(f"/jobs/{served.run().id}").json()).artifacts[0]
    answer = ann.get(f"/artifacts/{record.id}")
    assert answer.content == b"P5 picture"
    assert answer.headers["content-type"] == "image/x-portable-graymap"
    assert answer.headers["etag"] == f'"{record.sha256}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    name = answer.headers["content-disposition"].split("filename=")[1].split('"')[1]
    assert name == f"{record.job_id}-0____x.pgm"
    again = ann.get(f"/artifacts/{record.id}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_changed_artifact_is_refused(served: Served, ann: httpx.Client) -> None:
    submit(ann)
    job = served.run()
    artifact = ann.get(f"/jobs/{job.id}").json()["artifacts"][0]
    sha256 = artifact["sha256"]
    path = served.settings.home_path / "artifacts" / "blobs" / sha256[:2] / sha256[2:4] / sha256
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"!")
    answer = ann.get(f"/artifacts/{artifact['id']}")
    path.write_bytes(good)
    assert (answer.status_code, error(answer)["kind"]) == (507, "StorageError")


def numbers(client: httpx.Client, path: str, headers: dict[str, str] | None = None, stop: int = 10**6) -> list[int]:
    found: list[int] = []
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data:"):
                found.append(wire.EventRecord(**json.loads(line[5:])).number)
                if len(found) == stop:
                    break
    return found


def test_a_stream_that_is_taken_up_again_misses_no_event(served: Served, ann: httpx.Client) -> None:
    submit(ann)
    job = served.run(finish=False)
    first = numbers(ann, f"/jobs/{job.id}/events", stop=2)
    timer = threading.Timer(0.4, lambda: served.store.fail(job.lease, "invalid", "over"))
    timer.start()
    rest = numbers(ann, f"/jobs/{job.id}/events", {"Last-Event-ID": str(first[-1])})
    timer.join()
    assert first + rest == [event.number for event in served.store.events(job.id)]
    assert numbers(ann, f"/jobs/{job.id}/events", {"Last-Event-ID": str(rest[-1])}) == []
    assert numbers(ann, f"/jobs/{job.id}/events?after={rest[-2]}") == rest[-1:]
    bad = ann.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": "x"})
    assert (bad.status_code, error(bad)["field"]) == (422, "Last-Event-ID")


def test_metrics_tell_of_jobs_and_requests_and_of_no_identifier(ann: httpx.Client) -> None:
    job = submit(ann)
    ann.get(f"/jobs/{job['id']}")
    text = ann.get("/metrics").text
    assert 'perrin_jobs{pool="dots",state="queued"} 1.0' in text
    assert 'route="/v1/jobs/{job_id}"' in text
    assert job["id"] not in text
    assert "perrin_workers 0.0" in text


def test_a_nearly_full_disk_refuses_a_submission(dots: Path, tmp_path: Path) -> None:
    for served in serve(Settings(home=tmp_path, min_free_mb=10**9)):
        with served.client("ann") as ann:
            answer = ann.post("/jobs", json={"modality": "dots"})
            assert (answer.status_code, error(answer)["kind"]) == (507, "StorageError")
            assert "MiB free" in error(answer)["message"]
            assert served.store.counts() == []


def test_a_fault_inside_is_no_traceback_outside(
    served: Served, ann: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("secret detail")

    monkeypatch.setattr(JobStore, "queued", broken)
    answer = httpx.get(served.url + "/v1/health", trust_env=False, timeout=60)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    error(answer)


def test_a_lost_broker_does_not_fail_a_submission(dots: Path, tmp_path: Path) -> None:
    for served in serve(Settings(home=tmp_path, min_free_mb=0, broker_url="redis://127.0.0.1:9/0")):
        with served.client("ann") as ann:
            assert ann.post("/jobs", json={"modality": "dots"}).status_code == 201
            assert list(served.store.pending_hints()) == ["dots"]


FORBIDDEN: dict[str, Callable[[], str]] = {
    "perrin_orchestration.gateway": lambda: "torch,transformers,streamlit",
    "perrin_orchestration.supervisor": lambda: "torch,transformers,fastapi",
    "perrin_orchestration.engine_process": lambda: "torch,celery,fastapi",
    "perrin_orchestration.commands": lambda: "torch,sqlalchemy,celery,fastapi,alembic,fsspec,perrin.engine",
}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {FORBIDDEN[module]()!r}.split(',') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
