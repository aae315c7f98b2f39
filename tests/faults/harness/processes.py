"""Processes that are started again whenever they die, as `perrin up` does; and how to find their engines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from guard import Guard
from platforms import PATIENCE

__all__ = ["PATIENCE", "Keeper", "engines_of", "wait_for"]

AGAIN_SECONDS = 0.05


def engines_of(pid: int) -> list[psutil.Process]:
    """The engine processes of the worker with this process id; none if it is gone."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() == "perrin-engine" or "perrin_orchestration engine" in " ".join(process.cmdline()):
                    found.append(process)
    return found


class Keeper:
    """One process, kept alive until it is closed.

    Args:
        guard: ends it with the test.
        name: what it is called in the history and in its log.
        command: what to run.
        environment: its environment.
        folder: where its log goes.
        descriptors: file descriptors to hand down.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self,
        guard: Guard,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name, self.starts = name, 0
        self.environment = dict(environment)
        self.log = folder / f"{name}.log"
        self._guard, self._command, self._descriptors = guard, list(command), tuple(descriptors)
        self._closing = threading.Event()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def send(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close(self) -> None:
        """End it, and keep it no longer."""
        self._closing.set()
        self.send(signal.SIGKILL)
        self._thread.join()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as log:
            return self._guard.spawn(
                self._command, env=self.environment, stdout=log, stderr=log, pass_fds=self._descriptors
            )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._closing.wait(AGAIN_SECONDS):
                return
            self._process = self._spawn()
            if self._closing.is_set():
                self._process.kill()


def wait_for(condition: object, what: str, seconds: float = PATIENCE, pause: float = 0.02) -> object:
    """What ``condition()`` answers once it is true.

    Raises:
        AssertionError: that took too long.
    """
    end = time.monotonic() + seconds
    while not (answer := condition()):  # type: ignore[operator]
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:g} s: {what}")
        time.sleep(pause)
    return answer
