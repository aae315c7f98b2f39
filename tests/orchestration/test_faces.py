"""SDK and command line against a real gateway: the same words everywhere, one line for each refusal."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn

from perrin.cli import main
from perrin.client import Client
from perrin.commands.times import moment
from perrin.errors import Conflict, InvalidInput, NotAllowed
from perrin.settings import Settings
from perrin.wire import Parent, Submission
from perrin_orchestration.gateway import create_app
from perrin_orchestration.prepare import prepare_store
from perrin_orchestration.sockets import address, bind
from perrin_orchestration.store import JobStore, Move, NewArtifact

FILE = NewArtifact("0.pgm", "image/x-portable-graymap", 5, "a" * 64, (0,), {})


@dataclass
class Platform:
    store: JobStore
    client: Client

    def run(self, kind: str | None = None) -> str:
        (job,) = self.store.claim("o", "worker", ["dots"], 1, 30.0)
        self.store.start(job.lease)
        self.store.progress([Move(job.lease, "step", 1, 2, 30.0)])
        self.store.charge({job.id: 1.5})
        if kind is not None:
            self.store.fail(job.lease, kind, "no luck")
        else:
            self.store.committing(job.lease)
            self.store.commit(job.lease, [FILE])
        return job.id


@pytest.fixture
def platform(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    settings = Settings(home=tmp_path, min_free_mb=0)
    prepare_store(settings)
    store = JobStore(settings.store_url)
    store.people.allow(store.people.add("ann", operator=True), "key")
    store.people.allow(store.people.add("bob"), "other key")
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        monkeypatch.setenv("PERRIN_URL", address(listener))
        monkeypatch.setenv("PERRIN_API_KEY", "key")
        monkeypatch.setenv("PERRIN_HOME", str(tmp_path))
        with Client() as client:
            yield Platform(store, client)
        server.should_exit = True
        thread.join(60)
    store.close()


def run(line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    found = main(shlex.split(line))
    out, err = capsys.readouterr()
    assert found == code, err
    if code:
        assert err.startswith("perrin: ")
        assert len(err.splitlines()) == 1
    return err if code else out


def test_the_sdk_tries_again_and_tells_the_history(platform: Platform) -> None:
    job = platform.client.submit("dots", radius=3)
    with pytest.raises(Conflict, match="it can be tried again once it has come to nothing"):
        job.retry()
    platform.run("invalid")
    assert [dead.id for dead in platform.client.jobs(dead=True)] == [job.id]
    again = job.retry()
    assert again.record.retry_of == job.id
    assert platform.client.jobs(dead=True) == []
    (attempt,) = job.history()
    assert (attempt.state, attempt.error_kind, attempt.message) == ("failed", "invalid", "no luck")
    assert job.refresh().gpu_seconds == 1.5


def test_the_sdk_submits_groups_and_waits_for_them(platform: Platform) -> None:
    jobs = [
        Submission(modality="dots", name="first"),
        {"modality": "dots", "parents": [{"job": "first", "parameter": "start"}]},
    ]
    group = platform.client.submit_group(jobs, label="two")
    timer = threading.Timer(0.2, lambda: (platform.run(), platform.run()))
    timer.start()
    record = group.wait(timeout=120)
    timer.join()
    assert dict(record.states) == {"succeeded": 2}
    made = group.jobs[0].artifacts[0].record.id
    assert group.jobs[1].record.parameters["start"] == made
    assert [found.id for found in platform.client.groups()] == [group.id]
    late = platform.client.submit("dots", parents=[Parent(job=group.jobs[0].id, parameter="start")], group=group.id)
    assert late.record.parameters["start"] == made
    assert platform.client.group(group.id).record.states == {"succeeded": 2, "queued": 1}
    assert platform.client.group(group.id).cancel().states == {"succeeded": 2, "cancelled": 1}
    with pytest.raises(Conflict, match="nothing to cancel"):
        group.cancel()


def test_the_sdk_refuses_before_it_asks(platform: Platform) -> None:
    for submit, field in (
        (lambda: platform.client.submit("dots", run_after=datetime(2030, 1, 1)), "run_after"),
        (lambda: platform.client.submit_group([]), "jobs"),
        (lambda: platform.client.submit_group([{"modality": "dots", "colour": 1}]), "jobs.0.colour"),
        (lambda: platform.client.submit_group([{"modality": "dots", "parameters": {"x": float("nan")}}]), "x"),
    ):
        with pytest.raises(InvalidInput) as refused:
            submit()
        assert refused.value.field == field
    assert platform.store.counts() == []


def test_the_sdk_changes_pools_for_operators(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.client.submit("dots")
    assert platform.client.change_pool("dots", "pause", "dust").reason == "dust"
    assert [(pool.name, pool.state) for pool in platform.client.pools()] == [("dots", "paused")]
    monkeypatch.setenv("PERRIN_API_KEY", "other key")
    with Client() as bob, pytest.raises(NotAllowed, match="pools are for operators"):
        bob.change_pool("dots", "resume")


def test_the_command_line_says_the_same(platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run("submit dots hello --deadline 1h", capsys).strip()
    second = run(f"submit dots --parent {first}:start", capsys).strip()
    third = run("submit dots --run-after 2h", capsys).strip()
    assert platform.store.get(third).state == "waiting"
    assert first in run(f"job {second}", capsys)
    assert "can be tried again once" in run(f"retry {first}", capsys, 2)
    platform.run("invalid")
    assert {first, second} == {job["id"] for job in json.loads(run("jobs --dead --json", capsys))}
    again = run(f"retry {first}", capsys).strip()
    assert platform.store.get(again).retry_of == first
    assert run("jobs --dead", capsys) == ""
    assert "no luck" in run(f"job {first} --history", capsys)
    assert json.loads(run(f"job {first} --history --json", capsys))[0]["error_kind"] == "invalid"
    assert "dots" in run("pool list", capsys)
    assert run("pool pause dots --reason dust", capsys) == "pool dots is paused\n"
    assert "is paused already" in run("pool pause dots", capsys, 2)
    assert run("pool drain dots", capsys) == "pool dots is draining\n"
    assert "pool dots is draining: it takes no jobs until it is resumed" in run("submit dots", capsys, 2)
    assert run("pool resume dots", capsys) == "pool dots is open\n"
    assert "run-after: got 'soon', wanted 90s, 10m" in run("submit dots --run-after soon", capsys, 2)
    assert "bob  share 2" in run("db share bob 2", capsys)
    assert "from 0.01 to 100" in run("db share bob 0", capsys, 2)
    assert "deleted 0 jobs" in run("db clean", capsys)


def test_the_command_line_submits_groups(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("label: two\njobs:\n- {modality: dots, name: a}\n- {modality: dots, parents: [{job: a}]}\n")
    group = run(f"group submit {file}", capsys).strip()
    assert "two" in run("group list", capsys)
    assert "waiting" in run(f"group show {group}", capsys)
    assert [job["name"] for job in json.loads(run(f"group show {group} --json", capsys))["jobs"]] == ["a", None]
    assert run(f"group cancel {group}", capsys) == f"{group} 2 cancelled\n"
    assert "nothing to cancel" in run(f"group cancel {group}", capsys, 2)
    assert "there is no group" in run("group show nothing", capsys, 2)
    assert "there is no file" in run("group submit nothing.yaml", capsys, 2)
    for text, words in (
        ("{", "neither YAML nor JSON"),
        ("3", "wanted a list of jobs"),
        ("[1]", "wanted a list of jobs"),
        ("[{modality: dots, parameters: {radius: 99}}]", "jobs.0.radius: got 99, wanted"),
        ("[{modality: dots, name: a, parents: [{job: a}]}]", "got 'a -> a', wanted no job that waits for itself"),
    ):
        file.write_text(text)
        assert words in run(f"group submit {file}", capsys, 2)


def test_times_are_from_now_or_of_a_clock() -> None:
    now = datetime.now(UTC)
    for text, seconds in (("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)):
        found = moment("deadline", text)
        assert found is not None
        assert timedelta(0) <= found - now - timedelta(seconds=seconds) < timedelta(minutes=1)
    assert moment("deadline", "2030-05-01T12:00:00+00:00") == datetime(2030, 5, 1, 12, tzinfo=UTC)
    assert moment("deadline", None) is None
    for text in ("", "10", "10w", "-5m", "yesterday"):
        with pytest.raises(InvalidInput, match="deadline"):
            moment("deadline", text)
