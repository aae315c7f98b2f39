"""A TCP proxy in front of a server, that can go deaf, lose the answer to a commit, and break an answer off."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass

__all__ = ["Proxy"]

_CHUNK = 1 << 16


@dataclass
class _Pair:
    """The two ends of one connection through the proxy."""

    client: socket.socket
    server: socket.socket
    said: bytes = b""
    doomed: bool = False
    heard: bool = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Forwards connections to ``port`` on this machine.

    Attributes:
        port: where it listens.
        lost: how many answers to a commit it has kept to itself.
        breaks: so many answers are still to be broken off: of each, what comes first passes, and then it hangs up.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.lost = 0
        self.breaks = 0
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._lose: list[bytes] = []
        self._last_words: bytes | None = None
        self._pairs: list[_Pair] = []
        self._closed = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def deaf(self) -> None:
        """Pass nothing on any more, in either direction, and close nothing: the other side seems to be silent."""
        self._open.clear()

    def deaf_after(self, words: bytes) -> None:
        """Become deaf as soon as the client has said this, which still reaches the server."""
        self._last_words = words

    @property
    def is_deaf(self) -> bool:
        """Nothing passes."""
        return not self._open.is_set()

    def hear(self) -> None:
        """Pass everything on again, what came meanwhile too."""
        self._open.set()

    def lose_answer(self, about: bytes = b"") -> None:
        """Once: let the next commit through, of a transaction in which ``about`` was sent, and lose its answer."""
        with self._lock:
            self._lose.append(about)

    def forget(self) -> None:
        """Lose no more answers."""
        with self._lock:
            self._lose.clear()

    def hang_up(self) -> None:
        """Close every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def close(self) -> None:
        """Stop."""
        self._closed, self._last_words = True, None
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.settimeout(None)
        pair = _Pair(client, server)
        with self._lock:
            self._pairs.append(pair)
        threading.Thread(target=self._pump, args=[pair, server, client, self._hears], daemon=True).start()
        self._pump(pair, client, server, self._says)

    def _pump(self, pair: _Pair, source: socket.socket, target: socket.socket, passes: object) -> None:
        try:
            while data := source.recv(_CHUNK):
                self._open.wait()
                if not passes(pair, data):  # type: ignore[operator]
                    break
                target.sendall(data)
        except OSError:
            pass
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        pair.close()

    def _says(self, pair: _Pair, data: bytes) -> bool:
        """What the client says reaches the server, its last words too."""
        pair.heard = False
        if self._last_words is not None and self._last_words in data:
            self._last_words = None
            self.deaf()
        if not self._lose:
            pair.said = b""
            return True
        pair.said += data
        if b"COMMIT" in data or b"ROLLBACK" in data:
            with self._lock:
                for about in self._lose:
                    if b"COMMIT" in data and about in pair.said:
                        self._lose.remove(about)
                        pair.doomed = True
                        break
            pair.said = b""
        return True

    def _hears(self, pair: _Pair, _data: bytes) -> bool:
        if pair.heard and self.breaks:
            self.breaks -= 1
            return False
        pair.heard = True
        if pair.doomed:
            self.lost += 1
        return not pair.doomed
