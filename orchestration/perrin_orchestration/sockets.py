"""Listening sockets: bound before anything else is done, so that a taken port is one clear line."""

from __future__ import annotations

import socket

from perrin.errors import Conflict

__all__ = ["address", "bind"]


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that listens on ``host`` and ``port``; port 0 takes a free one.

    Raises:
        Conflict: the port is taken; names it and the option that chooses another.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"port {port} on {host} cannot be used ({(error.strerror or str(error)).lower()}): "
            f"choose another with {option}, 0 for any"
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """The URL under which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
