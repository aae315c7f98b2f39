"""A worker's ear in a process of its own, as it is in the product: says the pool of each hint it hears.

python ear.py NAME POOL; it ends with its standard input. `listen` starts one from a test.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Ear", "listen"]


class Ear:
    """What a test has of it.

    Attributes:
        name: as Celery knows it.
        last: what it said last: a pool, or "shutdown".
    """

    def __init__(self, pool: str, environment: dict[str, str]) -> None:
        self.name = f"perrin@{uuid.uuid4().hex[:8]}"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.name, pool],
            env=dict(os.environ) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._heard: queue.Queue[tuple[str, float]] = queue.Queue()
        self.last = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            pool, _, at = line.partition(" ")
            self._heard.put((pool, float(at)))

    def clear(self) -> None:
        """Forget what was heard so far."""
        while not self._heard.empty():
            self._heard.get()

    def wait(self, seconds: float) -> float | None:
        """When the next hint was heard, by the monotonic clock of all processes; None if none was in time."""
        try:
            self.last, at = self._heard.get(timeout=seconds)
            return at
        except queue.Empty:
            return None

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


@contextmanager
def listen(pool: str, environment: dict[str, str]) -> Iterator[Ear]:
    """An ear for hints to ``pool``, with ``PERRIN_*`` settings in ``environment``."""
    ear = Ear(pool, environment)
    try:
        yield ear
    finally:
        ear.close()


def main(name: str, pool: str) -> None:
    from perrin.settings import Settings
    from perrin_orchestration.transport import HintReceiver, make_app

    def say(word: str = "shutdown") -> None:
        print(word, time.monotonic(), flush=True)

    receiver = HintReceiver(make_app(Settings()), name, [pool], say, say)
    receiver.start()
    sys.stdin.read()
    receiver.stop()
    receiver.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
