"""Whose turn it is: a free place goes to the user who has had least of the GPUs for their share.

A user's level is used + held * typical / share, where used are the GPU-seconds charged so far divided by the share,
held the jobs that run now and typical what a job of theirs takes. Serving whoever is lowest keeps the levels of all who
have work within one job of each other, so each gets GPU-seconds in proportion to their share, however many jobs they
submit and however long those take. A user who had no work begins level with the others: idle time is not saved up.

References:
    A. K. Parekh and R. G. Gallager, A generalized processor sharing approach to flow control (1993); the start tag of
    P. Goyal, H. M. Vin and H. Cheng, Start-time fair queuing (1996).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["LEAST_SECONDS", "Standing", "floor", "turns"]

LEAST_SECONDS = 1e-3
"""No job is taken to be shorter than this, so that the turn always passes on."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One user's account: see the module's text; ``active`` users had work when last looked at."""

    used: float
    share: float = 1.0
    typical: float = 1.0
    held: int = 0
    active: bool = True

    @property
    def cost(self) -> float:
        """What one more job is expected to add to the level."""
        return max(self.typical, LEAST_SECONDS) / self.share

    @property
    def level(self) -> float:
        """GPU-seconds by share, those of the jobs held now included."""
        return self.used + self.held * self.cost


def floor(standings: Sequence[Standing], highest: float | None) -> float:
    """The account that newcomers are lifted to.

    Args:
        standings: the users with work here.
        highest: the fullest account of the users with work anywhere, or None if nobody had any.
    """
    here = [standing.used for standing in standings if standing.active]
    if here:
        return min(here)
    return max(standing.used for standing in standings) if highest is None else highest


def turns(standings: Mapping[str, Standing], available: Callable[[str], Sequence[int]], limit: int) -> Iterator[int]:
    """Up to ``limit`` jobs, in the order in which they are to be claimed.

    Args:
        standings: by user.
        available: the first jobs of a user, best first; asked once for each user whose turn comes.
        limit: how many.
    """
    lots = [(standing.level, random.random(), user) for user, standing in standings.items()]
    heapq.heapify(lots)
    lines: dict[str, Iterator[int]] = {}
    while lots and limit > 0:
        level, lot, user = heapq.heappop(lots)
        if user not in lines:
            lines[user] = iter(available(user))
        number = next(lines[user], None)
        if number is None:
            continue
        yield number
        limit -= 1
        heapq.heappush(lots, (level + standings[user].cost, lot, user))
