"""A thread that runs an engine for callers in several threads.

Callers submit requests and wait for their own events; whatever is there at a tick shares it. The thread starts with the
first request and sleeps when there is nothing to do; it ends with its driver.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from perrin.engine.engine import Engine
from perrin.engine.events import Event, Failed, Finished, Request

__all__ = ["Driver", "Ticket"]

T = TypeVar("T")


class Ticket:
    """A submitted request, as its caller sees it.

    Attributes:
        request: what was submitted.
    """

    def __init__(self, driver: Driver, request: Request, news: Callable[[Event], None] | None) -> None:
        self.request = request
        self._driver, self._news = driver, news
        self._events: deque[Event] = deque()
        self._raised: BaseException | None = None
        self._changed = threading.Condition()

    def wait(self) -> Finished:
        """Block until the request is done; progress is told from here, in the caller's thread.

        Raises:
            Exception: what ended the request.
        """
        while True:
            with self._changed:
                while not self._events and self._raised is None:
                    self._changed.wait()
                if not self._events and self._raised is not None:
                    raise self._raised
                event = self._events.popleft()
            match event:
                case Finished():
                    return event
                case Failed(error=error):
                    raise error
                case _ if self._news is not None:
                    self._news(event)

    def cancel(self) -> None:
        """Forget the request."""
        self._driver._cancel(self)

    def tell(self, event: Event) -> None:
        """Pass an event on, if the caller wants it."""
        if self._news is not None or isinstance(event, Finished | Failed):
            with self._changed:
                self._events.append(event)
                self._changed.notify()

    def stop(self, error: BaseException) -> None:
        """Raise ``error`` in the caller."""
        with self._changed:
            self._raised = error
            self._changed.notify()


class _Shared:
    """What the thread and the driver share; it does not keep the driver alive."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tickets: dict[str, Ticket] = {}
        self.arrived = threading.Event()
        self.closed = False
        self._turn, self._lock = threading.Lock(), threading.Lock()

    @contextmanager
    def between_ticks(self) -> Iterator[None]:
        """Alone with the engine. Who holds the turn is next, so the thread and the callers alternate."""
        with self._turn:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        self.closed = True
        self.arrived.set()


class Driver:
    """Runs ``engine`` in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._shared = _Shared(engine)
        self._thread: threading.Thread | None = None

    def submit(self, requests: Sequence[Request], news: Callable[[Event], None] | None = None) -> list[Ticket]:
        """Take requests in, all in time for one tick.

        Args:
            requests: what to make.
            news: told of every event but the last, by `Ticket.wait`.

        Raises:
            InvalidInput: unknown modality, model, format or parameter; then none of them is taken.
        """
        tickets = [Ticket(self, request, news) for request in requests]
        with self._shared.between_ticks():
            try:
                for request in requests:
                    self.engine.admit(request)
            except BaseException:
                for request in requests:
                    self.engine.cancel(request.id)
                raise
            self._shared.tickets |= {ticket.request.id: ticket for ticket in tickets}
            if self._thread is None:
                self._thread = threading.Thread(target=_work, args=[self._shared], name="perrin-engine", daemon=True)
                weakref.finalize(self, self._shared.close)
                self._thread.start()
        self._shared.arrived.set()
        return tickets

    def call(self, work: Callable[[], T]) -> T:
        """``work()`` between two ticks."""
        with self._shared.between_ticks():
            return work()

    def _cancel(self, ticket: Ticket) -> None:
        with self._shared.between_ticks():
            if self._shared.tickets.pop(ticket.request.id, None) is not None:
                self.engine.cancel(ticket.request.id)


def _work(shared: _Shared) -> None:
    """Tick while there is something to do."""
    while not shared.closed:
        with shared.between_ticks():
            active = shared.engine.active
            if active:
                _tick(shared)
        if not active:
            shared.arrived.wait()
            shared.arrived.clear()


def _tick(shared: _Shared) -> None:
    engine = shared.engine
    events: list[Event] = []
    try:
        events = engine.tick()
    except BaseException as error:  # such as an exit inside a plugin: it ends what the plugin was called for
        blamed = engine.doing.requests if engine.doing is not None else engine.requests
        for request_id in blamed:
            engine.cancel(request_id)
            ticket = shared.tickets.pop(request_id, None)
            if ticket is not None:
                ticket.stop(error)
    for event in events:
        ticket = shared.tickets.get(event.id)
        if ticket is not None:
            ticket.tell(event)
            if isinstance(event, Finished | Failed):
                del shared.tickets[event.id]
