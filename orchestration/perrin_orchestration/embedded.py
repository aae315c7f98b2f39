"""A whole platform from a Python program, or from ``perrin up``: the same processes either way.

::

    from perrin_orchestration import embedded

    with embedded.platform(home="/tmp/try") as (url, api_key):
        ...

No service is needed: store, broker and artifacts are folders under home. The processes end with the ``with`` block, and
also if this process dies inside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from perrin.errors import Conflict, NotInstalled, StorageError, Unreachable
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.channel import Channel
from perrin_orchestration.prepare import local_key, prepare_store
from perrin_orchestration.runfile import RunFile, end_leftovers, hold_lock, is_running, make_home
from perrin_orchestration.sockets import address, bind

__all__ = ["Address", "Running", "platform", "start", "stop"]

START_SECONDS = 90.0
"""Gateway, worker and dashboard must answer within this."""


class Address(NamedTuple):
    """Where the gateway is and what opens it."""

    url: str
    api_key: str


@dataclass
class Running:
    """A platform that was started here."""

    run: RunFile
    process: subprocess.Popen[bytes]
    channel: Channel


@contextmanager
def platform(home: str | Path, **settings: Any) -> Iterator[Address]:
    """A platform under ``home`` for as long as the block runs, on a free port, without a dashboard.

    Args:
        home: the folder that holds everything that persists; made if need be.
        settings: fields of `perrin.settings.Settings`, such as ``device="cpu"``.

    Raises:
        Conflict: a platform runs under this home already.
        Unreachable: it did not start; the message says what its log says.
    """
    chosen = Settings(**({"port": 0} | settings | {"home": Path(home)}))
    running = start(chosen, dashboard=False, bound=True)
    try:
        yield Address(running.run.url, running.run.api_key)
    finally:
        stop(chosen)
        running.channel.close()
        running.process.wait()


def start(settings: Settings, *, dashboard: bool, bound: bool) -> Running:
    """Start a platform under ``settings.home`` and wait until it answers.

    Args:
        settings: where everything is.
        dashboard: start the dashboard as well.
        bound: it ends when this process does; otherwise it stays until `stop`.

    Raises:
        Conflict: one runs already, or a port is taken.
        SchemaMismatch: the store is newer than this Perrin.
        StorageError: there is no folder or bucket for the artifacts, or it may not be used.
        Unreachable: it did not start.
    """
    make_home(settings)
    lock = hold_lock(settings)
    if lock is None:
        run = RunFile.read(settings)
        raise Conflict(
            f"Perrin runs already{f' at {run.url}' if run else ''} (home {settings.home_path}): "
            "`perrin down` stops it, --home or PERRIN_HOME starts another beside it"
        )
    with lock:
        old = RunFile.read(settings)
        if old is not None:
            end_leftovers(old)
            settings.run_file.unlink(missing_ok=True)
        with bind(settings.host, settings.port) as listener:
            setup = _setup(settings, listener, dashboard, bound)
            prepare_store(settings)
            ArtifactStore(settings.artifacts_path).check()
            setup["api_key"] = local_key(settings)
            running = _spawn(settings, setup, listener, lock)
    try:
        _await(settings, running)
    except BaseException:
        stop(settings)
        running.channel.close()
        running.process.wait()
        raise
    if not bound:
        running.channel.close()
    return running


def stop(settings: Settings) -> bool:
    """Stop the platform under ``settings.home`` in good order; False if none ran.

    Raises:
        StorageError: it cannot be stopped, because its processes belong to somebody else.
    """
    if not is_running(settings):
        run = RunFile.read(settings)
        left = end_leftovers(run) if run is not None else []
        settings.run_file.unlink(missing_ok=True)
        return bool(left)
    run = RunFile.read(settings) or _soon(settings)
    if run is not None:
        try:
            os.kill(run.pids["platform"], 15)
        except ProcessLookupError:
            pass
        except PermissionError:
            raise StorageError(f"the platform at {run.url} belongs to another user: only they can stop it") from None
    if not _until(lambda: not is_running(settings), 40.0) and run is not None:
        end_leftovers(run, 0.0)
    settings.run_file.unlink(missing_ok=True)
    return True


def _setup(settings: Settings, listener: socket.socket, dashboard: bool, bound: bool) -> dict[str, Any]:
    setup = {"url": address(listener), "bound": bound, "listener": listener.fileno()}
    setup |= {"dashboard_url": None, "dashboard_port": 0}
    if dashboard:
        if importlib.util.find_spec("streamlit") is None:
            raise NotInstalled("the dashboard (leave it out with --no-dashboard)", "dashboard")
        with bind(settings.host, settings.dashboard_port, "--dashboard-port") as probe:
            setup |= {"dashboard_url": address(probe), "dashboard_port": probe.getsockname()[1]}
    return setup


def _spawn(settings: Settings, setup: dict[str, Any], listener: socket.socket, lock: IO[str]) -> Running:
    ours, theirs = socket.socketpair()
    environment = dict(os.environ)
    for name in settings.model_fields_set:
        if getattr(settings, name) is not None:
            environment[f"PERRIN_{name.upper()}"] = str(getattr(settings, name))
    environment["PERRIN_HOME"] = str(settings.home_path)
    with theirs, (settings.home_path / "logs" / "platform.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "perrin_orchestration", "platform", "--fd", str(theirs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs.fileno(), listener.fileno(), lock.fileno()),
            start_new_session=True,
        )
    channel = Channel(ours)
    channel.send(setup)
    return Running(RunFile(setup["url"], setup["api_key"], setup["dashboard_url"]), process, channel)


def _await(settings: Settings, running: Running) -> None:
    """Until gateway, worker and dashboard answer."""
    waiting = {"gateway": running.run.url + "/v1/health"}
    if running.run.dashboard_url:
        waiting["dashboard"] = running.run.dashboard_url
    end = time.monotonic() + START_SECONDS
    while waiting:
        name, url = next(iter(waiting.items()))
        if _answers(url) and (name != "gateway" or _workers(url)):
            del waiting[name]
            continue
        if running.process.poll() is not None:
            raise Unreachable(f"the platform did not start: {_last_line(settings, 'platform')}")
        if time.monotonic() > end:
            worst = "worker" if name == "gateway" and _answers(url) else name
            raise Unreachable(f"the {worst} did not start within {START_SECONDS:.0f} s: {_last_line(settings, worst)}")
        time.sleep(0.1)


def _answers(url: str) -> bytes:
    """What answers at ``url``, or nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), opener.open(url, timeout=2) as answer:
        return bytes(answer.read(1 << 16))
    return b""


def _workers(url: str) -> int:
    """Workers that the gateway at ``url`` has heard of."""
    answer = _answers(url)
    return int(json.loads(answer)["workers"]) if answer else 0


def _last_line(settings: Settings, name: str) -> str:
    path = settings.home_path / "logs" / f"{name}.log"
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f"{lines[-1][:300]} (all of it in {path})" if lines else f"{path} is empty"


def _soon(settings: Settings) -> RunFile | None:
    _until(lambda: settings.run_file.exists(), 5.0)
    return RunFile.read(settings)


def _until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
