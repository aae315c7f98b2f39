"""Which failures may pass, and how long to wait for that.

::

    storage      the disk was full or away          5 more tries, after 10, 20, 40, 80, 160 s
    memory       the device had too little left     1 more try, after 5 s
    error        anything unforeseen                2 more tries, after 1, 4 s
    crash        the process died                   at once; quarantined after 3
    degenerate, invalid, deadline, parent           never: the same job would end the same way
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CRASHES_ALLOWED", "RETRIES", "Retry", "pause_before"]

CRASHES_ALLOWED = 3
"""A job whose process died this often is quarantined."""


@dataclass(frozen=True, slots=True)
class Retry:
    """``times`` more tries, the first after ``first`` seconds, each pause ``factor`` times the last."""

    times: int
    first: float
    factor: float

    def pause(self, retries: int) -> float:
        """Seconds before the try that follows ``retries`` others."""
        return self.first * self.factor**retries


RETRIES = {"storage": Retry(5, 10.0, 2.0), "memory": Retry(1, 5.0, 1.0), "error": Retry(2, 1.0, 4.0)}
"""By the kind of error; kinds that are not here are final."""


def pause_before(kind: str, retries: int) -> float | None:
    """Seconds to wait before a job that failed with ``kind`` is tried again, or None if it is not.

    Args:
        kind: class of the error.
        retries: how often the job has been tried again already, for whatever reason.
    """
    retry = RETRIES.get(kind)
    return retry.pause(retries) if retry is not None and retries < retry.times else None
