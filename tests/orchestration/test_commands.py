"""``perrin up`` to ``perrin down`` as a person types them, and each way it can go wrong: one line, exit code 2."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.runfile import RunFile, is_running
from perrin_orchestration.store import JobStore, LeaseRef, schema
from perrin_orchestration.store.database import Database


def perrin(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perrin", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PERRIN_HOME": str(home), "PERRIN_PORT": "0", "PERRIN_DEVICE": "cpu", **environment},
    )


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stderr + done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.fixture
def home(dots: Path, tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    perrin(tmp_path / "home", "down")


def test_up_runs_until_down_and_its_jobs_go_on(home: Path) -> None:
    done = perrin(home, "up", "--no-dashboard")
    assert done.returncode == 0, done.stderr
    run = json.loads((home / "run.json").read_text())
    assert run["url"] in done.stdout
    assert run["dashboard_url"] is None
    assert (home / "run.json").stat().st_mode & 0o777 == 0o600
    assert run["api_key"] not in done.stdout + done.stderr
    for pid in run["pids"].values():
        assert run["api_key"] not in " ".join(psutil.Process(pid).cmdline())

    twice = one_line(perrin(home, "up", "--no-dashboard"))
    assert f"runs already at {run['url']}" in twice

    headers = {"Authorization": f"Bearer {run['api_key']}"}
    with httpx.Client(base_url=run["url"] + "/v1", headers=headers, trust_env=False, timeout=60) as client:
        body = {"modality": "dots", "parameters": {"steps": 1000, "delay": 0.1}}
        job = client.post("/jobs", json=body).json()["id"]
        while client.get(f"/jobs/{job}").json()["state"] != "running":
            time.sleep(0.05)
    began = time.monotonic()
    assert perrin(home, "down").stdout == "stopped\n"
    assert time.monotonic() - began < 75, "fifteen seconds, and a machine that does other things"
    assert not any(lives(pid) for pid in run["pids"].values())
    assert not (home / "run.json").exists()
    assert perrin(home, "down").stdout == f"nothing runs under {home}\n"

    assert perrin(home, "up", "--no-dashboard").returncode == 0
    again = json.loads((home / "run.json").read_text())
    assert again["api_key"] == run["api_key"]
    with httpx.Client(base_url=again["url"] + "/v1", headers=headers, trust_env=False, timeout=60) as client:
        record = client.get(f"/jobs/{job}").json()
        while record["state"] != "running":
            time.sleep(0.05)
            record = client.get(f"/jobs/{job}").json()
        assert record["attempts"] == 2
        client.post(f"/jobs/{job}/cancel")
        assert "released by its worker" in client.get(f"/jobs/{job}/events").text


def test_a_stale_run_file_is_no_obstacle_and_leftovers_are_ended(home: Path) -> None:
    assert perrin(home, "up", "--no-dashboard").returncode == 0
    run = RunFile.read(Settings(home=home))
    assert run is not None
    os.kill(run.pids["platform"], signal.SIGKILL)
    end = time.monotonic() + 120
    while is_running(Settings(home=home)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert lives(run.pids["gateway"])
    assert perrin(home, "up", "--no-dashboard").returncode == 0
    for name in ("gateway", "worker"):
        assert not lives(run.pids[name])
    perrin(home, "down")
    fake = {"url": "http://127.0.0.1:1", "api_key": "k", "dashboard_url": None}
    fake |= {"pids": {"platform": os.getpid()}, "started": {"platform": 1.0}}  # an id that was used again
    (home / "run.json").write_text(json.dumps(fake))
    assert perrin(home, "down").stdout.startswith("nothing runs")
    assert not (home / "run.json").exists()


def test_a_taken_port_is_named_with_the_option(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (["up", "--no-dashboard", "--port", port], ["gateway", "--port", port]):
            line = one_line(perrin(home, *command))
            assert port in line
            assert "--port" in line
        assert not (home / "run.json").exists()


def test_another_schema_is_refused_by_every_process(home: Path) -> None:
    for command in ("gateway", "worker"):
        assert "run `perrin db upgrade`" in one_line(perrin(home, command))
    assert perrin(home, "db", "upgrade").stdout.endswith(f"the job store is at revision {schema.newest()}\n")
    database = Database(f"sqlite:///{home / 'perrin.db'}")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for arguments in (["gateway"], ["worker"], ["up", "--no-dashboard"], ["db", "upgrade"]):
        assert f"newer than {schema.newest()}" in one_line(perrin(home, *arguments))


def test_backup_and_restore_from_the_command_line(home: Path, tmp_path: Path) -> None:
    assert "there is no job store" in one_line(perrin(home, "db", "backup"))
    perrin(home, "db", "upgrade")
    assert perrin(home, "db", "backup", str(tmp_path / "b.db")).returncode == 0
    assert "exists" in one_line(perrin(home, "db", "backup", str(tmp_path / "b.db")))
    assert perrin(home, "db", "restore", str(tmp_path / "b.db")).returncode == 0
    assert "a backup that" in one_line(perrin(home, "db", "restore", str(tmp_path / "none.db")))
    database = Database(f"sqlite:///{home / 'perrin.db'}")
    assert schema.check(database) == schema.newest()
    database.close()


def test_strays_are_removed_from_the_command_line(home: Path) -> None:
    perrin(home, "db", "upgrade")
    artifacts = ArtifactStore(Settings(home=home).artifacts_path)
    gone = LeaseRef("a" * 32, 1, "o")
    artifacts.put_preview(gone, b"png")
    artifacts.put_state(gone, b"row")
    artifacts.stage(gone, 0, b"half a result")
    young = artifacts.keep(b"perhaps about to be named")
    for removed in (3, 0):
        done = perrin(home, "db", "clean")
        assert done.stdout == f"deleted 0 jobs, and {removed} files that belonged to none\n", done.stderr
    assert artifacts.read(young.sha256)
    (home / "artifacts" / "owner").write_text("another store")
    assert "belong to another job store" in one_line(perrin(home, "db", "clean"))


def test_a_key_is_made_and_shown_once(home: Path) -> None:
    perrin(home, "db", "upgrade")
    keys = [perrin(home, "db", "key", "ann", *options).stdout.strip() for options in ([], ["--operator"])]
    store = JobStore(Settings(home=home).store_url)
    first, second = (store.people.who(key) for key in keys)
    assert (first.name, first.id, first.operator) == ("ann", second.id, True)
    store.close()
    assert keys[0].encode() not in (home / "perrin.db").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker", "--pool", "nothing"], "pool: got 'nothing', wanted one of"),
        (["worker", "--cpu", "--gpus", "all"], "nothing beside --cpu"),
        (["worker", "--gpus", "99"], "gpus: got '99'"),
    ],
)
def test_a_worker_says_what_it_cannot_do(home: Path, arguments: list[str], words: str) -> None:
    assert words in one_line(perrin(home, *arguments))


def test_an_unusable_home_is_one_line(dots: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(perrin(tmp_path / "file" / "home", "up", "--no-dashboard"), code=1)
    assert "PERRIN_HOME" in line
