"""``run.json``: what is running under a home, for clients on this machine and for whoever stops it.

Whether something runs is told by a lock that the platform process holds, never by this file: process ids are used
again, locks die with their holder. The ids in it are trusted only together with the processes' starting times.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import psutil

from perrin.errors import StorageError
from perrin.settings import Settings

__all__ = ["RunFile", "end_leftovers", "hold_lock", "is_running"]


@dataclass(frozen=True)
class RunFile:
    """Addresses, key and processes of a running platform; readable by its user alone."""

    url: str
    api_key: str = field(repr=False)
    dashboard_url: str | None = None
    pids: Mapping[str, int] = field(default_factory=dict)
    started: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, settings: Settings) -> RunFile | None:
        """The file under home, or None if there is none that can be read."""
        try:
            values = json.loads(settings.run_file.read_text())
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, settings: Settings) -> None:
        """Replace the file under home, whole, with permissions 0600 from its first byte."""
        part = settings.run_file.with_name("run.json.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            json.dump(asdict(self), stream, indent=2)
        part.replace(settings.run_file)


def make_home(settings: Settings) -> Path:
    """Home, made if need be.

    Raises:
        StorageError: it cannot be made or written.
    """
    home = settings.home_path
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"PERRIN_HOME {home} cannot be used: {(error.strerror or str(error)).lower()}") from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise StorageError(f"PERRIN_HOME {home} cannot be written")
    return home


def hold_lock(settings: Settings) -> IO[str] | None:
    """The lock that says that a platform runs under this home, or None if another holds it."""
    stream = (settings.home_path / "platform.lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


def is_running(settings: Settings) -> bool:
    """A platform process lives under this home."""
    if not settings.home_path.is_dir():
        return False
    lock = hold_lock(settings)
    if lock is None:
        return True
    lock.close()
    return False


def end_leftovers(run: RunFile, seconds: float = 12.0) -> list[str]:
    """Stop processes that outlived their platform process; their names. Ids that were used again are left alone."""
    found: dict[str, psutil.Process] = {}
    for name, pid in run.pids.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - run.started.get(name, 0.0)) < 1.0:
                found[name] = process
                process.terminate()
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(_lives(process) for process in found.values()):
        time.sleep(0.05)
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            if _lives(process):
                process.kill()
    return list(found)


def _lives(process: psutil.Process) -> bool:
    """Not a zombie either: where process 1 reaps nothing, as in many containers, those stay."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
