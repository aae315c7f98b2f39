"""Nothing that a test starts outlives it, whatever ends the test: a failure, Ctrl-C or ``kill -9``.

A guard is a small process that waits for the end of a pipe whose other end this process holds. Then it kills every
process that was started under it, or that carries its token in the environment because such a process started it;
unmounts what is mounted in its folder; and removes the folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Guard"]

TOKEN = "PERRIN_TEST_GUARD"

_WAIT = f"""
import os, shutil, signal, subprocess, sys, time
token = ("{TOKEN}=" + sys.argv[1]).encode()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sessions = set(sys.stdin.read().split())
for _ in range(100):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, _, _, session = open(f"/proc/{{name}}/stat").read().rpartition(")")[2].split()[:4]
            mine = session in sessions or token in open(f"/proc/{{name}}/environ", "rb").read().split(b"\\0")
            if mine and state != "Z":
                os.kill(int(name), signal.SIGKILL)
                found.append(name)
        except OSError:
            pass
    if not found:
        break
    time.sleep(0.02)
folder = sys.argv[2] + "/"
for line in open("/proc/self/mounts"):
    if line.split()[1].startswith(folder):
        subprocess.run(["umount", "-l", line.split()[1]])
shutil.rmtree(folder, ignore_errors=True)
"""


class Guard:
    """Starts processes that end with this one, and has a folder that goes with them.

    Attributes:
        folder: short enough for a socket's path; removed at the end.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="perrin-test-"))
        self.folder.chmod(0o711)  # a server of another user has a folder in it
        self._token = uuid.uuid4().hex
        command = [sys.executable, "-I", "-S", "-c", _WAIT, self._token, str(self.folder)]
        self._children: list[subprocess.Popen[bytes]] = []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def spawn(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[bytes]:
        """`subprocess.Popen`, in a session of its own, under this guard."""
        environment = {**(os.environ if env is None else env), TOKEN: self._token}
        process = subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, **how)
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % process.pid)
        self._process.stdin.flush()
        self._children = [child for child in self._children if child.poll() is None] + [process]
        return process

    def close(self) -> None:
        """Kill what is left, and remove the folder."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        for child in self._children:
            child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
