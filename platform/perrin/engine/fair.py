"""Who is next: a waiting line that is fair between owners, and turns that are.

An owner with a hundred requests gets no more room than one with a single request: the line admits for the owner who has
least in flight, and turns alternate between owners. Priority goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from perrin.engine.events import Request

__all__ = ["Line", "Served", "interleave"]


class Served(Protocol):
    """Something that takes turns."""

    request: Request
    served: int
    """Number of the tick that served it last."""


T = TypeVar("T", bound=Served)

Queue = tuple[int, str]
"""Priority, highest first, and owner."""


class Line:
    """Requests that wait for room."""

    def __init__(self) -> None:
        self._queues: dict[Queue, OrderedDict[str, Request]] = {}
        self._where: dict[str, Queue] = {}
        self._last: dict[str, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def join(self, request: Request) -> None:
        """Wait behind the other requests of the same owner and priority."""
        queue = (-request.priority, request.owner)
        self._queues.setdefault(queue, OrderedDict())[request.id] = request
        self._where[request.id] = queue

    def leave(self, request_id: str) -> Request | None:
        """Wait no more."""
        queue = self._where.pop(request_id, None)
        if queue is None:
            return None
        request = self._queues[queue].pop(request_id)
        if not self._queues[queue]:
            del self._queues[queue]
        if not self._where:
            self._last.clear()
        return request

    def take(self, in_flight: Mapping[str, int]) -> Request | None:
        """The next request: of the highest priority, then of the owner with the least ``in_flight``, then of the one
        who was admitted longest ago, then the one that waits longest."""
        if not self._where:
            return None
        queue = min(self._queues, key=lambda q: (q[0], in_flight.get(q[1], 0), self._last.get(q[1], 0)))
        self._turn += 1
        self._last[queue[1]] = self._turn
        return self.leave(next(iter(self._queues[queue])))


def interleave(flights: Iterable[T]) -> list[T]:
    """Those served longest ago first, owner by owner: every owner's first, then every owner's second ..."""
    order = sorted(flights, key=lambda flight: flight.served)
    ranks: dict[str, int] = {}
    ranked = []
    for flight in order:
        rank = ranks[flight.request.owner] = ranks.get(flight.request.owner, -1) + 1
        ranked.append(rank)
    if len(ranks) < 2:
        return order
    return [order[i] for i in sorted(range(len(order)), key=ranked.__getitem__)]
