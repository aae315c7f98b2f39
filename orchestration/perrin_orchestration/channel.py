"""JSON lines over a socket pair: how a supervisor and its engine process talk.

Both sides notice at once when the other has died, and what a dead process had sent can still be read.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["Channel", "Closed"]

Message = Mapping[str, Any]


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end of ``connection``."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""

    @classmethod
    def from_fd(cls, descriptor: int) -> Channel:
        """The end that a parent process handed down."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, *messages: Message) -> None:
        """Send messages, in order.

        Raises:
            Closed: nobody is there to read them.
        """
        try:
            self._socket.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        except OSError:
            raise Closed from None

    def receive(self, timeout: float = 0.0) -> list[dict[str, Any]]:
        """What has arrived; waits up to ``timeout`` seconds for the first message.

        Raises:
            Closed: the other side is gone and everything it sent has been read.
        """
        wait = timeout
        while True:
            readable, _, _ = select.select([self._socket], [], [], wait)
            if not readable:
                break
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                if b"\n" in self._rest:
                    break
                raise Closed
            self._rest += data
            wait = 0.0
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
