"""The gateway's process: uvicorn on a socket that is bound before anything else is done."""

from __future__ import annotations

import socket

import structlog
import uvicorn

from perrin.settings import Settings
from perrin_orchestration import logs
from perrin_orchestration.sockets import address, bind

__all__ = ["serve"]

_log = structlog.get_logger("perrin.gateway")


def serve(settings: Settings | None = None, *, descriptor: int | None = None) -> None:
    """Be a gateway until SIGTERM or SIGINT.

    Args:
        settings: where everything is; ``host`` and ``port`` count unless a socket is handed down.
        descriptor: of a listening socket that the parent process bound.

    Raises:
        Conflict: the port is taken.
        SchemaMismatch: the store is not one for this Perrin.
    """
    settings = settings or Settings()
    logs.configure(settings.log_level, process="gateway")
    listener = socket.socket(fileno=descriptor) if descriptor is not None else bind(settings.host, settings.port)
    from perrin_orchestration.gateway.app import create_app

    config = uvicorn.Config(
        create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=2, server_header=False
    )
    _log.info("gateway starts", url=address(listener))
    uvicorn.Server(config).run(sockets=[listener])
