"""Ports that no other test takes: neither one in another process of the suite, nor a connection on its way out."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_HELD: list[socket.socket] = []
_RANDOM = random.SystemRandom()
_BELOW = range(15_000, 32_000)
"""Linux hands out ports from 32,768 on to whoever asks for any, and to every connection."""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, and that is this process's for as long as it lives.

    Between the moment that a port is found free and the moment that a server has it another process may take it. So
    processes of tests hold a name for it, in Linux's abstract namespace of sockets, which ends with the process.
    """
    for port in _RANDOM.sample(_BELOW, 500):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0perrin-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _HELD.append(name)
        return port
    raise RuntimeError(f"no free port from {_BELOW[0]} to {_BELOW[-1]}")
