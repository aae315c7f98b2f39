"""Calls of several threads, carried out as one: whoever comes while a round is under way is part of the next.

What costs much once and little for each more, such as a transaction, is so shared by as many as need it at the moment,
and nobody waits for company.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

__all__ = ["Gather"]

A = TypeVar("A")
B = TypeVar("B")


class _Call:
    """What one thread asks for, waiting for its turn."""

    def __init__(self, asked: Any) -> None:
        self.asked = asked
        self.over = False
        self.answer: Any = None


class Gather(Generic[A, B]):
    """A function of one argument, made from one of many.

    Args:
        work: the answers to what several threads ask, in order; an exception among them is raised where it belongs,
            one that ``work`` raises at every caller.
    """

    def __init__(self, work: Callable[[Sequence[A]], Sequence[B | BaseException]]) -> None:
        self._work = work
        self._gate, self._turn = threading.Lock(), threading.Lock()
        self._calls: list[_Call] = []

    def __call__(self, asked: A) -> B:
        """The answer to ``asked``."""
        call = _Call(asked)
        with self._gate:
            self._calls.append(call)
        with self._turn:  # whoever gets it first carries out what the others ask too
            if not call.over:
                with self._gate:
                    calls, self._calls = self._calls, []
                self._round(calls)
        if isinstance(call.answer, BaseException):
            raise call.answer
        return cast(B, call.answer)

    @property
    def waiting(self) -> int:
        """How many calls the next round has by now."""
        return len(self._calls)

    def _round(self, calls: Sequence[_Call]) -> None:
        try:
            answers = self._work([call.asked for call in calls])
            for call, answer in zip(calls, answers, strict=True):
                call.answer = answer
        except BaseException as error:
            for call in calls:
                call.answer = error
            if not isinstance(error, Exception):
                raise
        finally:
            for call in calls:
                call.over = True
