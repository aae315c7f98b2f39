from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dots
import pytest
from gateway import KEY, Gateway

from perrin import transport
from perrin.client import Client
from perrin.errors import (
    Conflict,
    InvalidInput,
    JobCancelled,
    JobFailed,
    NotAllowed,
    NotFound,
    PerrinError,
    SchemaMismatch,
    StorageError,
    UnknownName,
    Unreachable,
)
from perrin.wire import EventRecord, JobState, ProgressRecord


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    dots.install(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(transport, "PAUSES", (0.01, 0.02, 0.04))
    with Gateway() as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.url, KEY, timeout=60) as made:
        yield made


def test_finds_the_platform_that_up_started(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "home" / "run.json").write_text(json.dumps({"url": gateway.url, "api_key": KEY, "pids": {}}))
    with Client() as client:
        assert client.url == gateway.url
        assert client.models()[0].name == "dots-8"


def test_the_environment_goes_before_the_run_file(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "run.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "api_key": "other"}))
    monkeypatch.setenv("PERRIN_URL", gateway.url)
    with Client(timeout=60) as client, pytest.raises(NotAllowed):
        client.jobs()  # the key of another platform is not handed to this one
    monkeypatch.setenv("PERRIN_API_KEY", KEY)
    with Client(timeout=60) as client:
        assert client.jobs() == []


def test_no_platform_says_how_to_start_one(gateway: Gateway) -> None:
    with pytest.raises(Unreachable, match="perrin up"):
        Client()


def test_a_dead_address_says_how_to_start_one(gateway: Gateway) -> None:
    with Client("http://127.0.0.1:9", timeout=1) as client, pytest.raises(Unreachable, match="perrin up"):
        client.health()


@pytest.mark.parametrize("url", ["", "ftp://there", "there:7860", "http://"])
def test_a_bad_address_is_named(gateway: Gateway, url: str) -> None:
    with pytest.raises((InvalidInput, Unreachable)):
        Client(url)


def test_something_else_than_a_gateway_is_said_to_be_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway._Handler._answer", lambda *_: b"<html>")
    with pytest.raises(Unreachable, match="not a Perrin gateway"):
        client.models()


def test_submit_wait_save(gateway: Gateway, client: Client, tmp_path: Path) -> None:
    job = client.submit("dots", prompt="a dot", seed=7, count=2, label="mine")
    assert job.artifacts == ()
    gateway.run(job.id)
    assert job.wait().state is JobState.SUCCEEDED
    assert [artifact.name for artifact in job.artifacts] == ["0.png", "1.png"]
    paths = job.save(tmp_path / "out")
    assert [path.name for path in paths] == [f"{job.id}-0.png", f"{job.id}-1.png"]
    assert [path.name for path in job.save(tmp_path / "apple.png")] == ["apple-0.png", "apple-1.png"]
    assert (tmp_path / "apple-1.png").read_bytes() == gateway.files[f"{job.id}-1"] == paths[1].read_bytes()
    assert job.artifacts[0].save(tmp_path / "one.png").read_bytes() == job.artifacts[0].bytes()
    assert not list(tmp_path.rglob("*.part"))
    assert client.job(job.id).record.label == "mine"


@pytest.mark.parametrize("lost", [1, 3])
def test_a_submission_whose_answer_was_lost_makes_one_job(gateway: Gateway, client: Client, lost: int) -> None:
    gateway.lose_requests = lost
    job = client.submit("dots", prompt="a dot")
    assert list(gateway.jobs) == [job.id]
    assert gateway.requests == ["POST /jobs"] * (lost + 1)


def test_one_key_makes_one_job_and_no_key_makes_two(client: Client) -> None:
    first = client.submit("dots", prompt="a dot", idempotency_key="k")
    assert client.submit("dots", prompt="a dot", idempotency_key="k").id == first.id
    assert client.submit("dots", prompt="a dot").id != client.submit("dots", prompt="a dot").id


def test_a_gateway_that_is_busy_is_asked_again(gateway: Gateway, client: Client) -> None:
    gateway.refuse = 2
    assert client.health().ok
    gateway.refuse = 10
    with pytest.raises(Unreachable, match="the database is away"):
        client.health()


@pytest.mark.parametrize("kind", [InvalidInput, UnknownName, NotFound, Conflict, SchemaMismatch, StorageError])
def test_errors_come_back_as_what_they_were(
    client: Client, monkeypatch: pytest.MonkeyPatch, kind: type[PerrinError]
) -> None:
    sent = kind("steps", 0, "at least 1") if issubclass(kind, InvalidInput) else kind("one line")

    def answer(*_: object) -> None:
        raise sent

    monkeypatch.setattr("gateway._Handler._answer", answer)
    with pytest.raises(kind) as caught:
        client.jobs()
    assert type(caught.value) is kind
    assert caught.value.message == sent.message
    if isinstance(caught.value, InvalidInput):
        assert caught.value.field == "steps"


def test_an_error_that_is_no_answer_of_ours_still_has_one_line(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway._Handler._error", lambda self, *_: self._send(500, b"<html>oh</html>"))
    with pytest.raises(PerrinError, match="500"):
        client.job("none")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"modality": "nope"}, "modality"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 101}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**6}, "steps"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"colour": "red"}, "colour"),
        ({"priority": 1000}, "priority"),
        ({"label": "x" * 201}, "label"),
        ({"format": "exe"}, "format"),
    ],
)
def test_bad_input_names_the_field(client: Client, gateway: Gateway, arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: got .*, ") as caught:
        client.submit(**{"modality": "dots", "prompt": "a dot", **arguments})
    assert caught.value.field == field
    assert not gateway.jobs


@pytest.mark.parametrize(
    ("broken_after", "cut"), [(0, True), (1, True), (1, False), (2, True), (2, False), (10**9, False)]
)
def test_no_event_is_lost_or_doubled_by_broken_connections(
    gateway: Gateway, client: Client, broken_after: int, cut: bool
) -> None:
    gateway.events_per_stream, gateway.cut = broken_after, cut
    job = client.submit("dots", prompt="a dot")
    threading.Timer(0.1, gateway.run, (job.id, 6)).start()
    if broken_after == 0:
        threading.Timer(0.3, setattr, (gateway, "events_per_stream", 10**9)).start()
    events = list(job.events(timeout=120))
    assert [event.number for event in events] == list(range(1, 10))
    assert events[-1].state is JobState.SUCCEEDED
    assert [event.number for event in job.events(after=5)] == [6, 7, 8, 9]
    assert list(job.events(after=9)) == []


def test_a_gateway_that_comes_back_is_found_again(client: Client, gateway: Gateway) -> None:
    job = client.submit("dots", prompt="a dot")
    gateway.refuse = 6
    threading.Timer(0.3, gateway.run, (job.id, 2)).start()
    assert [event.number for event in job.events(timeout=120)] == [1, 2, 3, 4, 5]


def test_a_gateway_that_stays_away_ends_the_stream(
    client: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.submit("dots", prompt="a dot")
    monkeypatch.setattr(transport, "PATIENCE", 0.05)
    gateway.refuse = 10**6
    with pytest.raises(Unreachable):
        list(job.events())


def test_progress_and_results_reach_the_caller(client: Client, gateway: Gateway) -> None:
    job = client.submit("dots", prompt="a dot")
    seen: list[EventRecord] = []
    threading.Timer(0.05, gateway.run, (job.id, 3)).start()
    job.wait(progress=seen.append)
    assert [e.progress.done for e in seen if e.progress] == [1, 2, 3]
    assert job.wait(progress=True).state is JobState.SUCCEEDED
    assert job.record.worker == "worker-1"


def test_failure_and_cancellation_are_raised_with_their_reason(
    client: Client, gateway: Gateway, tmp_path: Path
) -> None:
    job = client.submit("dots", prompt="a dot")
    gateway.fail(job.id, "the picture is black")
    with pytest.raises(JobFailed, match="the picture is black"):
        job.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = client.submit("dots", prompt="a dot")
    other.cancel()
    with pytest.raises(JobCancelled, match=other.id):
        other.wait()
    with pytest.raises(Conflict):
        client.cancel(other.id)


def test_waiting_can_end_before_the_job_does(client: Client) -> None:
    job = client.submit("dots", prompt="a dot")
    with pytest.raises(TimeoutError, match="goes on"):
        job.wait(timeout=0.2)
    assert job.state is JobState.QUEUED


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(client: Client, gateway: Gateway) -> None:
    job = client.submit("dots", prompt="a dot")

    def interrupt(event: EventRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"perrin job {job.id} --watch.*perrin cancel {job.id}"):
        job.wait(progress=interrupt)
    assert gateway.job(job.id).state is JobState.QUEUED


def test_bytes_that_changed_are_not_handed_out(client: Client, gateway: Gateway, tmp_path: Path) -> None:
    job = client.submit("dots", prompt="a dot")
    gateway.run(job.id)
    gateway.files[f"{job.id}-0"] += b"!"
    with pytest.raises(StorageError, match="SHA-256"):
        job.save(tmp_path / "apple.png")
    assert list(tmp_path.glob("*.p*")) == []


@pytest.mark.parametrize("path", ["apple.jpg", "no/such/apple.png"])
def test_a_path_that_cannot_be_is_said_before_waiting(client: Client, tmp_path: Path, path: str) -> None:
    job = client.submit("dots", prompt="a dot")
    with pytest.raises(InvalidInput, match=r"^out: "):
        job.save(tmp_path / path)


def test_a_write_that_fails_leaves_nothing(
    client: Client, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.submit("dots", prompt="a dot", count=2)
    gateway.run(job.id)
    done = []

    def full(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        job.save(tmp_path / "apple.png")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_previews_and_lists(client: Client, gateway: Gateway) -> None:
    job = client.submit("dots", prompt="a red dot")
    assert job.preview() is None
    gateway.previews[job.id] = b"png"
    assert job.preview() == b"png"
    gateway.happen(job.id, JobState.RUNNING, ProgressRecord(stage="step", done=1, total=2))
    other = client.submit("dots", prompt="blue", label="second")
    assert [j.id for j in client.jobs()] == [other.id, job.id]
    assert [j.id for j in client.jobs(search="red")] == [job.id]
    assert [j.id for j in client.jobs(state="running")] == [job.id]
    assert [j.id for j in client.jobs(before=other.id)] == [job.id]
    assert client.modalities()[0].parameters["required"] == ["prompt"]
    assert client.workers() == []


def test_the_sdk_loads_no_torch_and_no_server() -> None:
    code = "import sys, perrin.client; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "streamlit", "sqlalchemy", "celery", "fastapi"} & set(loaded)
