"""Errors as HTTP says them: one line, its class, its field; never a traceback. And the largest body there is."""

from __future__ import annotations

import json
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perrin.errors import InvalidInput, NotAllowed, PerrinError, StorageAway, Unreachable

__all__ = ["MAX_BODY", "BodyLimit", "drain", "install"]

MAX_BODY = 1 << 20
"""Bytes of the largest request body that is read."""

DRAINED = 16 << 20
"""Most bytes of a refused body that are read and thrown away, so that the refusal arrives."""

_log = structlog.get_logger("perrin.gateway")


def _answer(status: int, kind: str, message: str, field: str | None = None, **headers: str) -> JSONResponse:
    content = {"error": {"kind": kind, "field": field and _plain(field, 100), "message": _plain(message, 1000)}}
    return JSONResponse(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


def _plain(text: str, longest: int) -> str:
    """One line that any terminal can show: a request may name its fields as it likes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown if len(text) <= longest else shown + "..."


def _perrin(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PerrinError)
    headers = {"WWW_Authenticate": "Bearer"} if isinstance(error, NotAllowed) else {}
    headers |= {"Retry_After": "2"} if isinstance(error, Unreachable | StorageAway) else {}
    field = error.field if isinstance(error, InvalidInput) else None
    return _answer(error.status, type(error).__name__, error.message, field, **headers)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _perrin(_request, InvalidInput("body", "text that is not JSON", "a JSON object"))
    where = [str(part) for part in first["loc"][1:]]  # the first says which part of the request
    message = first["msg"][:1].lower() + first["msg"][1:]
    return _perrin(_request, InvalidInput(".".join(where) or "body", first.get("input"), message))


def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # the framework could not even parse it
        return _perrin(_request, InvalidInput("body", "text that cannot be read", "a JSON object"))
    kind = "NotFound" if error.status_code == 404 else "InvalidInput" if error.status_code < 500 else "PerrinError"
    message = f"{_request.method} {_request.url.path}: {str(error.detail).lower()}"
    return _answer(
        error.status_code, kind, message, **{k.replace("-", "_"): v for k, v in (error.headers or {}).items()}
    )


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return _answer(500, "PerrinError", "something went wrong inside the gateway; its log says what")


def install(app: FastAPI) -> None:
    """Answer every error in one shape."""
    app.add_exception_handler(PerrinError, _perrin)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


class BodyLimit:
    """Refuses bodies above `MAX_BODY`, whether their length was announced or not.

    Args:
        app: what is behind it.
        apart: a path that sets a limit of its own.
    """

    def __init__(self, app: ASGIApp, apart: str) -> None:
        self._app, self._apart = app, apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"] == self._apart:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BODY:
                if more:
                    await drain(receive)
                await _refuse(send)
                return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)


async def drain(receive: Receive, most: int = DRAINED) -> None:
    """Read on for a while: a connection closed on unread bytes is reset, and the answer with it."""
    left, more = most, True
    while more and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        more = message.get("more_body", False)


async def _refuse(send: Send) -> None:
    message = f"body: got more than {MAX_BODY >> 20} MiB, wanted at most that"
    content: dict[str, Any] = {"error": {"kind": "InvalidInput", "field": "body", "message": message}}
    answer = json.dumps(content).encode()
    length = str(len(answer)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
