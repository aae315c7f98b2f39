"""The small parts that the processes are made of, each by itself."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from perrin.errors import Conflict, Degenerate, InvalidInput, StorageError, UnknownName
from perrin.models import ModelCard
from perrin.settings import Settings
from perrin_orchestration import supervisor
from perrin_orchestration.channel import Channel, Closed
from perrin_orchestration.engine_handle import RECENT, SLACK, EngineHandle
from perrin_orchestration.engine_process import error_kind
from perrin_orchestration.pools import GIB, check_pools, pool_of, pools_for
from perrin_orchestration.runfile import RunFile
from perrin_orchestration.sockets import address, bind
from perrin_orchestration.store import LeaseRef
from perrin_orchestration.telemetry import Telemetry
from perrin_orchestration.transport import HintReceiver, HintSender, make_app


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (Degenerate("flat"), "degenerate", "flat"),
        (StorageError("full"), "storage", "full"),
        (InvalidInput("steps", 0, "1 to 9"), "invalid", "steps: got 0, wanted 1 to 9"),
        (MemoryError(), "memory", "MemoryError: no message"),
        (OutOfMemoryError("CUDA out of memory.\nlong report"), "memory", "OutOfMemoryError: CUDA out of memory."),
        (ValueError("bad\nthings"), "error", "ValueError: bad"),
        (ValueError("x" * 9999), "error", "ValueError: " + "x" * 488),
    ],
)
def test_an_error_has_a_kind_and_one_line(error: Exception, kind: str, line: str) -> None:
    assert error_kind(error) == (kind, line)


# --- channel ----------------------------------------------------------------------------------------------------------


def test_a_channel_keeps_messages_whole_and_in_order() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    assert ours.receive(0.0) == []
    big = {"text": "x" * 200_000}
    sender = threading.Thread(target=lambda: theirs.send({"n": 1}, big, {"n": 2}))
    sender.start()
    got: list[dict[str, Any]] = []
    while len(got) < 3:
        got += ours.receive(1.0)
    sender.join()
    assert got == [{"n": 1}, big, {"n": 2}]
    theirs.send({"n": 3})
    theirs.close()
    assert ours.receive(1.0) == [{"n": 3}]
    with pytest.raises(Closed):
        ours.receive(1.0)
    with pytest.raises(Closed):
        ours.send({"n": 4})
    ours.close()


# --- engine handle ----------------------------------------------------------------------------------------------------


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def handle(clockwork: Time) -> EngineHandle:
    made = EngineHandle("w", "cpu", ("dots",), 30.0, clockwork)
    made.owner, made.jobs, made.models, made.turn, made.stage, made.ready = "o", {}, (), (), "", True
    made._began = made._moved = made._renewed = clockwork()
    return made


@pytest.fixture
def clockwork() -> Time:
    return Time()


def say(handle: EngineHandle, **message: Any) -> None:
    handle._note({"is": message.pop("what"), "asked": handle._clock(), **message})


def in_stage(handle: EngineHandle, stage: str, done: int = 0) -> None:
    say(handle, what="turn", ids=["a"], stage=stage)
    say(handle, what="progress", id="a", epoch=1, stage=stage, done=done, total=9)


def test_a_lease_is_four_times_the_slowest_unit_of_the_stage(handle: EngineHandle, clockwork: Time) -> None:
    say(handle, what="claimed", id="a", epoch=1)
    in_stage(handle, "load")
    assert handle.allowance == SLACK * 30.0, "nothing is known of a first load"
    clockwork.now += 50
    in_stage(handle, "step")
    assert handle.allowance == 30.0
    for seconds in (5.0, 20.0, 1.0):
        clockwork.now += seconds
        in_stage(handle, "step", 1)
    assert handle.allowance == SLACK * 20.0
    (move,) = handle.moves()
    assert (move.stage, move.seconds) == ("step", 80.0)


def test_a_slow_unit_is_forgotten_after_a_while(handle: EngineHandle, clockwork: Time) -> None:
    """A machine that stood still for a minute must not have leases of minutes for ever."""
    say(handle, what="claimed", id="a", epoch=1)
    in_stage(handle, "step")
    clockwork.now += 60
    for _ in range(RECENT):
        in_stage(handle, "step", 1)
        assert handle.allowance == SLACK * 60.0
        clockwork.now += 0.5
    in_stage(handle, "step", 1)
    assert handle.allowance == 30.0


def test_a_lease_counts_from_when_its_renewal_was_asked_for(handle: EngineHandle, clockwork: Time) -> None:
    """The store counts from there too; a slow answer makes no lease longer."""
    say(handle, what="claimed", id="a", epoch=1)
    in_stage(handle, "step", 1)
    moves = handle.moves()
    clockwork.now += 12
    handle.written(moves, [])
    clockwork.now += 14
    assert handle.overdue() == []
    clockwork.now += 2
    assert handle.overdue() == [LeaseRef("a", 1, "o")]


def test_an_engine_that_stands_still_hangs_and_is_not_renewed(handle: EngineHandle, clockwork: Time) -> None:
    say(handle, what="claimed", id="a", epoch=1)
    say(handle, what="claimed", id="b", epoch=1)
    in_stage(handle, "step")
    clockwork.now += 10
    assert handle.waiting() == [], "it has not moved since it was last renewed"
    in_stage(handle, "step", 1)
    leases = [LeaseRef("a", 1, "o"), LeaseRef("b", 1, "o")]
    assert handle.waiting() == leases
    handle.written(handle.moves(), leases)
    assert (handle.moves(), handle.waiting(), handle.hangs) == ([], [], False)
    clockwork.now += 39
    assert handle.hangs
    assert handle.overdue() == leases
    assert handle.blamed == ["a"]


def test_the_device_works_for_the_jobs_whose_turn_it_is(handle: EngineHandle, clockwork: Time) -> None:
    for name in ("a", "b"):
        say(handle, what="claimed", id=name, epoch=1)
    clockwork.now += 3  # nobody's turn yet
    for turn, seconds in ((["a"], 2.0), (["b"], 5.0), (["a", "b"], 1.0)):
        say(handle, what="turn", ids=turn, stage="step")
        clockwork.now += seconds
    say(handle, what="ended", id="a", epoch=1)
    assert handle.spent == {"a": 2.5, "b": 5.5}
    clockwork.now += 7  # b alone, until the next turn
    say(handle, what="turn", ids=["b"], stage="step")
    assert handle.spent == {"a": 2.5, "b": 12.5}
    handle.paid({"a": 2.5, "b": 12.0})
    assert handle.spent == {"b": 0.5}


def test_a_message_of_an_earlier_epoch_changes_nothing(handle: EngineHandle) -> None:
    say(handle, what="claimed", id="a", epoch=2)
    say(handle, what="progress", id="a", epoch=1, stage="step", done=5, total=9)
    say(handle, what="lost", id="a", epoch=1)
    assert handle.moves() == []
    assert list(handle.jobs) == ["a"]
    say(handle, what="ended", id="a", epoch=2)
    assert (handle.jobs, handle.finished, handle.blamed) == ({}, 1, [])


# --- hints ------------------------------------------------------------------------------------------------------------


class Outbox:
    def __init__(self) -> None:
        self.rows = {"dots": 3}
        self.sent: list[tuple[str, int]] = []

    def pending_hints(self) -> dict[str, int]:
        return dict(self.rows)

    def hinted(self, pool: str, last: int) -> None:
        self.sent.append((pool, last))
        self.rows.pop(pool, None)


def test_a_hint_travels_through_the_folder_broker_and_raises_the_flag(tmp_path: Path) -> None:
    app = make_app(Settings(home=tmp_path))
    outbox, heard = Outbox(), threading.Event()
    sender = HintSender(app, outbox)
    receiver = HintReceiver(app, "perrin@test", ["dots"], lambda _pool: heard.set())
    sender.flush()
    assert outbox.sent == [("dots", 3)]
    (message,) = (tmp_path / "broker" / "queue").glob("*perrin.dots.msg")
    assert json.loads(message.read_text())["content-type"] == "application/json"
    receiver.start()
    assert heard.wait(60)
    heard.clear()
    assert sender.send("dots")
    assert heard.wait(60)
    receiver.stop()
    receiver.join()
    app.close()


def test_a_reader_of_the_folder_broker_never_sees_half_a_message(tmp_path: Path) -> None:
    app, over, seen = make_app(Settings(home=tmp_path)), threading.Event(), set[str]()
    queue = tmp_path / "broker" / "queue"

    def look() -> None:
        while not over.is_set():
            for path in queue.glob("*.dots.msg"):
                seen.add(path.read_text())
                path.unlink()

    with app.connection_for_write() as connection:
        reader = threading.Thread(target=look)
        reader.start()
        for number in range(500):
            connection.default_channel._put("dots", {"number": number})
        end = time.monotonic() + 120
        while len(seen) < 500 and time.monotonic() < end:
            time.sleep(0.01)
        over.set()
        reader.join()
    assert {json.loads(text)["number"] for text in seen} == set(range(500))
    assert not list(queue.iterdir())
    app.close()


def test_a_worker_that_stopped_consuming_finds_out_and_listens_anew(tmp_path: Path) -> None:
    app, name, heard = make_app(Settings(home=tmp_path)), "perrin@deaf", threading.Event()
    sender = HintSender(app, Outbox())
    receiver = HintReceiver(app, name, ["dots"], lambda _pool: heard.set())
    receiver.start()
    sender.send("dots")
    assert heard.wait(60)

    def called(seconds: float = 60.0) -> bool:
        receiver.call()
        end = time.monotonic() + seconds
        while receiver.unheard and time.monotonic() < end:
            time.sleep(0.02)
        return receiver.unheard == 0

    assert called()
    for queue in ("perrin.dots", f"perrin.worker.{name}"):  # as an operator's slip would, from outside
        app.control.cancel_consumer(queue, destination=[name])
    end = time.monotonic() + 120
    while receiver.unheard < 2:  # each call is counted, until one is heard
        called(5.0)
        assert time.monotonic() < end, "the consumer was not cancelled"
    heard.clear()
    sender.send("dots")
    assert not heard.wait(1)
    receiver.restart()
    assert heard.wait(60), "the hint that waited is heard"
    assert called()
    receiver.stop()
    receiver.join()
    app.close()


def test_a_broker_that_is_away_leaves_the_hint_in_the_outbox() -> None:
    outbox = Outbox()
    sender = HintSender(make_app(Settings(broker_url="redis://127.0.0.1:9/0")), outbox)
    sender.flush()
    assert outbox.rows == {"dots": 3}


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_job_waits_for_a_device_that_holds_its_model(tmp_path: Path) -> None:
    pools = {}
    for name, gib in (("small", 5.0), ("middle", 5.2), ("big", 40.0), ("vast", 400.0)):
        with (tmp_path / f"{name}.safetensors").open("wb") as stream:
            stream.truncate(int(gib * GIB))
        values = {"name": name, "modality": "dots", "title": name, "licence": "CC0-1.0", "folder": tmp_path}
        pools[name] = pool_of(ModelCard.model_validate({**values, "files": {f"{name}.safetensors": ""}}))
    assert pools == {"small": "dots", "middle": "dots-16g", "big": "dots-80g", "vast": "dots-192g"}
    assert pools_for(["dots"], 4 * GIB) == ("dots",)
    assert pools_for(["dots", "rings"], 23 * GIB) == ("dots", "dots-16g", "dots-24g", "rings", "rings-16g", "rings-24g")
    check_pools(["dots", "dots-24g"], ["dots", "image"])
    for wrong in ("dot", "dots-23g", "dots-8g", "-24g", "dots-"):
        with pytest.raises(UnknownName, match="also with -16g"):
            check_pools([wrong], ["dots", "image"])


def test_devices_are_what_was_asked_for_or_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "gpu_count", lambda: 2)
    auto, mps = Settings(device="auto"), Settings(device="mps")
    assert supervisor.devices(auto) == ("cuda:0", "cuda:1")
    assert supervisor.devices(auto, cpu=True) == ("cpu",)
    assert supervisor.devices(mps) == ("mps",)
    assert supervisor.devices(mps, gpus="all") == ("cuda:0", "cuda:1")
    assert supervisor.devices(mps, gpus="1, 1") == ("cuda:1",)
    with pytest.raises(InvalidInput, match="GPUs 0 to 1 are here"):
        supervisor.devices(auto, gpus="2")
    monkeypatch.setattr(supervisor, "gpu_count", lambda: 0)
    assert supervisor.devices(auto) == ("cpu",)
    with pytest.raises(InvalidInput, match="no NVIDIA GPU is here"):
        supervisor.devices(auto, gpus="all")


def test_a_process_is_measured() -> None:
    import os

    usage = Telemetry(["cpu"]).usage([os.getpid(), 2**30])
    assert usage.memory_mb > 1
    assert usage.gpu_percent is None


def test_a_run_file_is_private_and_whole(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert RunFile.read(settings) is None
    run = RunFile("http://x", "secret", None, {"platform": 1}, {"platform": 2.0})
    run.write(settings)
    run.write(settings)
    assert RunFile.read(settings) == run
    assert settings.run_file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(run)
    settings.run_file.write_text('{"url": 1')
    assert RunFile.read(settings) is None


def test_a_socket_is_bound_or_the_port_is_named() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(Conflict, match=rf"port {port} .* choose another with --dashboard-port"):
            bind("127.0.0.1", port, "--dashboard-port")
