"""HTTP to the gateway: requests that survive its restart, errors that come back as what they were.

Every request of the wire may be sent twice without harm (a submission carries its idempotency key), so whatever fails
on the way is sent again, with growing pauses. An error answer is raised as the class of `perrin.errors` that the
gateway raised, with the same text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from perrin import errors
from perrin.errors import InvalidInput, PerrinError, Unreachable
from perrin.wire import EventRecord

__all__ = ["Transport"]

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each further try of a request."""

LONGEST_PAUSE = 5.0
SILENCE = 30.0
"""A stream that says nothing for this long, not even a comment, is opened again."""

PATIENCE = 60.0
"""An open stream is tried again for this long after the gateway was last heard."""

T = TypeVar("T")

_LOST = (httpx.TransportError, httpx.StreamError)
_BUSY = (502, 503, 504)


class Transport:
    """One gateway.

    Args:
        url: its address, without ``/v1``.
        api_key: what to present, or None.
        timeout: seconds to wait for one answer.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidInput("url", url, "an address such as http://127.0.0.1:7860")
        self.timeout = timeout
        self._http = httpx.Client(
            base_url=self.url + "/v1",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout,
            trust_env=parts.hostname not in {"127.0.0.1", "localhost", "::1"},  # no proxy leads to this machine
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def read(self, shape: TypeAdapter[T], method: str, path: str, **request: Any) -> T:
        """The answer to a `request`, as the wire says it is.

        Raises:
            Unreachable: something else than a gateway of this version answered.
        """
        answer = self.request(method, path, **request)
        try:
            return shape.validate_json(answer.content)
        except ValidationError as error:
            raise Unreachable(
                f"what answers at {self.url}/v1{path} is not a Perrin gateway of this version "
                f"({error.error_count()} fields differ); check PERRIN_URL"
            ) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to one request, tried again while the gateway does not answer.

        Raises:
            Unreachable: it did not answer at all.
            PerrinError: it answered with an error.
        """
        until = time.monotonic() + self.timeout
        params = {k: v for k, v in (params or {}).items() if v is not None}
        for pause in (*PAUSES, None):
            wait = pause is not None and time.monotonic() < until
            try:
                answer = self._http.request(method, path, params=params, json=json, content=content, headers=headers)
            except _LOST as error:
                if not wait:
                    raise self._unreachable(error) from None
            else:
                if answer.status_code not in _BUSY or not wait:
                    _raise_for(answer)
                    return answer
            time.sleep(pause or 0)
        raise AssertionError("the last try either returns or raises")

    def events(self, path: str, after: int, ended: Callable[[], bool], deadline: float | None) -> Iterator[EventRecord]:
        """Server-sent events with a number above ``after``, each once and in order, across lost connections.

        Args:
            path: where the events are.
            after: the last number already seen.
            ended: asks whether the job has ended, when a stream breaks off before its last event.
            deadline: `time.monotonic` after which to give up.

        Raises:
            TimeoutError: the deadline passed.
            Unreachable: the gateway was not heard for a minute.
        """
        heard, pause, over = time.monotonic(), PAUSES[0], False
        while True:
            left = SILENCE if deadline is None else min(SILENCE, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError
            seen = after
            try:
                for event in self._stream(path, after, left):
                    heard, pause = time.monotonic(), PAUSES[0]
                    if deadline is not None and heard > deadline:
                        raise TimeoutError
                    if event is not None and event.number > after:
                        after = event.number
                        yield event
                        if event.state.terminal:
                            return
                        heard = time.monotonic()  # the time a caller takes is not the gateway's silence
                if over and after == seen:
                    return
                over = over or ended()  # then read to the end once more: events may have come in between
                heard = time.monotonic()
                if over:
                    continue
            except (*_LOST, Unreachable) as error:
                if time.monotonic() - heard > PATIENCE:
                    raise self._unreachable(error) from None
            if deadline is not None:
                pause = max(0.0, min(pause, deadline - time.monotonic()))
            time.sleep(pause)
            pause = min(max(pause, PAUSES[0]) * 2, LONGEST_PAUSE)

    def _stream(self, path: str, after: int, silence: float) -> Iterator[EventRecord | None]:
        """Events as they come, and None for a sign of life."""
        timeout = httpx.Timeout(self.timeout, read=silence)
        with self._http.stream("GET", path, params={"after": after}, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                _raise_for(answer)
            for data in _events(answer.iter_lines()):
                yield None if data is None else EventRecord.model_validate_json(data)

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, Unreachable):
            return error
        what = str(error) or type(error).__name__
        return Unreachable(
            f"the gateway at {self.url} does not answer ({what}); start it with `perrin up`, or set PERRIN_URL"
        )


def _events(lines: Iterator[str]) -> Iterator[str | None]:
    """The data of whole events, and None for a comment. An event that broke off in the middle raises."""
    data: list[str] = []
    whole = True
    for line in lines:
        whole = not line or line.startswith(":")
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith(":"):
            yield None
        elif not line and data:
            yield "\n".join(data)
            data = []
    if not whole:
        raise httpx.RemoteProtocolError("the stream broke off in the middle of an event")


def _raise_for(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        body = answer.json()["error"]
        kind, message, field = str(body["kind"]), str(body["message"]), body.get("field")
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, message, field = "", f"the gateway answered {answer.status_code} {answer.reason_phrase}", None
        if answer.status_code in _BUSY:
            kind = "Unreachable"
    found = getattr(errors, kind, PerrinError) if kind in errors.__all__ else PerrinError
    raise _rebuilt(found, message, field)


def _rebuilt(kind: type[PerrinError], message: str, field: Any) -> PerrinError:
    """An error of ``kind`` with the text it had on the other side; the values it was made from stayed there."""
    error = kind.__new__(kind, message)
    if isinstance(error, InvalidInput):
        error.field, error.got, error.wanted = field or "", None, ""
    elif isinstance(error, errors.NotInstalled):
        error.extra = ""
    return error
