"""The platform process: parent of gateway, worker and dashboard on one machine; starts again what dies.

It holds the listening socket, so that a gateway that is started again loses no connection attempt, and the lock that
says that a platform runs under this home.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import psutil
import structlog

from perrin.settings import Settings
from perrin_orchestration import logs
from perrin_orchestration.channel import Channel, Closed
from perrin_orchestration.runfile import RunFile

__all__ = ["main"]

STOP_SECONDS = 15.0
"""A child that has not ended so long after SIGTERM is killed; a worker drains in less."""

_log = structlog.get_logger("perrin.platform")


@dataclass
class _Child:
    """One process, its log, and when to start it again."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: IO[bytes]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    failures: int = 0

    def spawn(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=self.descriptors,
        )
        self.started = psutil.Process(self.process.pid).create_time()
        self.start_at = 0.0

    def check(self) -> bool:
        """Whether the process was started again just now."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None and not self.start_at:
            lived = time.time() - self.started
            self.failures = 0 if lived > 30 else self.failures + 1
            self.start_at = now + min(30.0, 0.25 * 2.0**self.failures)
            _log.error("process ended", name=self.name, code=self.process.returncode, lived=round(lived, 1))
        if self.start_at and now >= self.start_at:
            self.spawn()
            return True
        return False

    def stop(self, seconds: float) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            _log.error("process does not stop, killed", name=self.name)
            self.process.kill()
            self.process.wait()


class Platform:
    """Starts, watches and stops the children.

    Args:
        settings: where everything is.
        setup: what `perrin_orchestration.embedded` decided: address, key, socket, dashboard.
        channel: to whoever started this; its end stops the platform if it is bound to that process.
    """

    def __init__(self, settings: Settings, setup: Mapping[str, Any], channel: Channel) -> None:
        self._settings, self._setup = settings, setup
        self._channel: Channel | None = channel if setup["bound"] else None
        self._stopping = False
        self._children = self._plan()

    def _plan(self) -> list[_Child]:
        here = [sys.executable, "-m", "perrin_orchestration"]
        environment = dict(os.environ)
        environment.pop("PERRIN_API_KEY", None)
        listener = self._setup["listener"]
        children = [
            _Child(
                "gateway", [*here, "gateway", "--fd", str(listener)], environment, self._log("gateway"), (listener,)
            ),
            _Child("worker", [*here, "worker"], environment, self._log("worker")),
        ]
        if self._setup["dashboard_url"]:
            port = str(self._setup["dashboard_port"])
            command = [sys.executable, "-m", "perrin", "dashboard", "--url", self._setup["url"], "--port", port]
            keyed = environment | {"PERRIN_API_KEY": self._setup["api_key"]}  # arguments can be read by every user
            children.append(_Child("dashboard", command, keyed, self._log("dashboard")))
        return children

    def _log(self, name: str) -> IO[bytes]:
        return (self._settings.home_path / "logs" / f"{name}.log").open("ab", buffering=0)

    def run(self) -> None:
        """Until SIGTERM, SIGINT or, if bound, the end of whoever started this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for child in self._children:
            child.spawn()
        self._write()
        while not self._stopping:
            self._wait(0.2)
            again = [child.name for child in self._children if child.check()]
            if again:
                self._write()
        _log.info("platform stops")
        for child in reversed(self._children):  # the gateway last: it tells clients how their jobs end
            child.stop(STOP_SECONDS)
        self._settings.run_file.unlink(missing_ok=True)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _wait(self, seconds: float) -> None:
        if self._channel is None:
            time.sleep(seconds)
            return
        try:
            select.select([self._channel], [], [], seconds)
            self._channel.receive(0.0)
        except Closed:
            self._stopping = True

    def _write(self) -> None:
        alive = {child.name: child for child in self._children if child.process is not None}
        me = psutil.Process()
        RunFile(
            self._setup["url"],
            self._setup["api_key"],
            self._setup["dashboard_url"],
            {"platform": me.pid} | {name: child.process.pid for name, child in alive.items() if child.process},
            {"platform": me.create_time()} | {name: child.started for name, child in alive.items()},
        ).write(self._settings)


def main(descriptor: int) -> None:
    """Run as the child of `perrin_orchestration.embedded.start`, which says the rest through ``descriptor``."""
    channel = Channel(socket.socket(fileno=descriptor))
    setup = channel.receive(30.0)[0]
    settings = Settings()
    logs.configure(settings.log_level, process="platform")
    Platform(settings, setup, channel).run()
