"""Whose turn it is: a free place goes to the user who has had least of the GPUs for their share.

A user's level is used + held * typical / share, where used are the GPU-seconds charged so far divided by the share,
held the jobs that run now and typical what a job of theirs takes. Serving whoever is lowest keeps the levels of all who
have work within one job of each other, so each gets GPU-seconds in proportion to their share, however many jobs they
submit and however long those take. A user who had no work begins level with the others: idle time is not saved up.
A job whose model is in memory may go before one whose model is not, as long as its user is at most `AHEAD` ahead.

References:
    A. K. Parekh and R. G. Gallager, A generalized processor sharing approach to flow control (1993); the start tag of
    P. Goyal, H. M. Vin and H. Cheng, Start-time fair queuing (1996).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["AHEAD", "LEAST_SECONDS", "Next", "Standing", "floor", "turns"]

LEAST_SECONDS = 1e-3
"""No job is taken to be shorter than this, so that the turn always passes on."""

AHEAD = 10.0
"""GPU-seconds by share that a user with a warm job may be ahead of one whose next job is cold."""

RIVALS = 4
"""So many users are asked for a warm job when the next one's is cold."""


@dataclass(frozen=True, slots=True)
class Next:
    """A job that could be claimed, and whether its model is in memory here."""

    number: int
    warm: bool = True


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


def turns(standings: Mapping[str, Standing], available: Callable[[str], Sequence[Next]], limit: int) -> Iterator[int]:
    """Up to ``limit`` jobs, in the order in which they are to be claimed.

    Args:
        standings: by user.
        available: the first jobs of a user, best first; asked at most once for each user.
        limit: how many.
    """
    lots = [(standing.level, random.random(), user) for user, standing in standings.items()]
    heapq.heapify(lots)
    lines: dict[str, list[Next]] = {}

    def first(user: str) -> Next | None:
        if user not in lines:
            lines[user] = list(reversed(available(user)))
        return lines[user][-1] if lines[user] else None

    while lots and limit > 0:
        lot = heapq.heappop(lots)
        job = first(lot[2])
        if job is None:
            continue
        if not job.warm and (rival := _warm_rival(lots, lot[0] + AHEAD, first)) is not None:
            lots.remove(rival)
            lots.append(lot)
            heapq.heapify(lots)
            lot = rival
        level, tie, user = lot
        yield lines[user].pop().number
        limit -= 1
        heapq.heappush(lots, (level + standings[user].cost, tie, user))


def _warm_rival(
    lots: Sequence[tuple[float, float, str]], highest: float, first: Callable[[str], Next | None]
) -> tuple[float, float, str] | None:
    """The lowest of the users up to the level ``highest`` whose next job is warm."""
    for lot in heapq.nsmallest(RIVALS, lots):
        job = first(lot[2]) if lot[0] <= highest else None
        if job is not None and job.warm:
            return lot
    return None
