r"""How many samples a network call should have, from what calls have taken.

For every model and shape a `Curve` remembers the latency l(n) of a call by its number of samples, in steps of a
tenth where they are many. A batch of n goes into one call unless calls of a smaller size b, a power of two, are
measured to be cheaper,

.. math:: \lfloor n / b \rfloor\, l(b) + l(n \bmod b) < (1 - \epsilon)\, l(n)

Sizes between measured ones are interpolated. What is not known yet is learnt in passing: a few batches are cut into
powers of two of every size, so each of them costs little more than it would have. A network that loses by batches ends
up being called for each request by itself.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any, TypeVar

__all__ = ["Curve", "Stopwatch"]

T = TypeVar("T")

KEPT = 7
"""Latencies kept of each size; their median counts."""

MARGIN = 0.03
"""Splitting must promise this much: below is noise."""

LEARN = 4
"""While sizes are unknown, one batch in so many is cut up to learn them."""

AGAIN = 128
"""One batch in so many is cut into every size, in case the machine has changed."""

TRUSTED = 3
"""A size is known after so many calls; the first of them is thrown away, for it prepares kernels."""


class Curve:
    """Latency of one network, in seconds, by samples in a call."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._count: dict[int, int] = {}
        self._latency: dict[int, float] = {}
        self._sizes: list[int] = []
        self._decided = 0

    def note(self, samples: int, seconds: float) -> None:
        """A call of so many samples took so long."""
        size = _round(samples)
        samples, seconds = size, seconds * size / samples
        count = self._count[samples] = self._count.get(samples, 0) + 1
        kept = self._seen.setdefault(samples, deque(maxlen=KEPT))
        if count == 2:
            kept.clear()
        kept.append(seconds)
        self._latency[samples] = median(kept)
        if count in (1, TRUSTED):
            trusted = sorted(size for size, times in self._count.items() if times >= TRUSTED)
            self._sizes = trusted or sorted(self._count)

    @property
    def measured(self) -> dict[int, float]:
        """Seconds by number of samples; the median of the last calls."""
        return {size: self._latency[size] for size in self._sizes}

    def seconds(self, samples: int) -> float:
        """What a call of so many samples takes: measured, interpolated, or 0.0 when nothing is known."""
        sizes, latency = self._sizes, self._latency
        if not sizes:
            return 0.0
        at = bisect_left(sizes, samples)
        low, high = sizes[max(0, at - 1)], sizes[min(at, len(sizes) - 1)]
        if low == high or high == samples:
            return latency[high] * samples / high
        return latency[low] + (latency[high] - latency[low]) * (samples - low) / (high - low)

    def total(self, samples: int, size: int) -> float:
        """What ``samples`` take in calls of ``size``."""
        whole, rest = divmod(samples, size)
        return whole * self.seconds(size) + (self.seconds(rest) if rest else 0.0)

    def best(self, samples: int) -> int:
        """The size of call that is known to be fastest for so many samples; all of them where nothing is known."""
        found, least = samples, self.seconds(samples)
        for size in _below(samples):
            if self._known(size) and self.total(samples, size) < least * (1 - MARGIN):
                found, least = size, self.total(samples, size)
        return found

    def choose(self, samples: int) -> list[int]:
        """The sizes of the calls that so many samples should go into; they add up."""
        self._decided += 1
        sizes = _below(samples)
        unknown = [size for size in sizes if not self._known(size)]
        if sizes and ((unknown and self._decided % LEARN == 0) or self._decided % AGAIN == 0):
            first = (unknown or sizes)[0]
            return [first, *_cut(samples - first)]
        size = self.best(samples)
        whole, rest = divmod(samples, size)
        return [size] * whole + ([rest] if rest else [])

    def smallest(self, samples: int) -> int:
        """The smallest size known to be no dearer, per sample, than a call of so many."""
        price = self.seconds(samples) / samples
        cheap = [n for n in _below(samples) if self._known(n) and self.seconds(n) / n <= price * (1 + MARGIN)]
        return min(cheap, default=samples)

    def passengers(self, urgent: int, samples: int, tolerance: float = 0.1) -> int:
        """How many of ``samples`` may share the call of the ``urgent`` ones without slowing it by more than
        ``tolerance``; at least the urgent ones."""
        allowed = self.seconds(urgent) * (1 + tolerance)
        size = samples
        while size > urgent and self.seconds(size) > allowed:
            size -= max(1, (size - urgent) // 4)
        return max(urgent, size)

    def _known(self, samples: int) -> bool:
        """Whether enough calls of about this size were seen."""
        return self._count.get(_round(samples), 0) >= TRUSTED


def _round(samples: int) -> int:
    """The nearest of 1, 2, ... 16, 18, ... 32, 36, ... 64, 72 ...: sizes that are counted as one."""
    step = 1 << max(0, samples.bit_length() - 4)
    return (samples + step // 2) // step * step


def _below(samples: int) -> list[int]:
    """The powers of two below ``samples``, the largest first."""
    return [2**k for k in range((samples - 1).bit_length() - 1, -1, -1)]


def _cut(samples: int) -> list[int]:
    """``samples`` as every power of two that goes into them once, and the rest: 40 is 16 + 8 + 4 + 2 + 1 + 9."""
    sizes = [2**k for k in range((samples + 1).bit_length() - 2, -1, -1)]
    rest = samples - sum(sizes)
    return [*sizes, rest] if rest else sizes


class Stopwatch:
    """Times network calls without waiting for the device.

    On the CPU a call is over when it returns. An accelerator is only told what to compute; there, events in its stream
    are read once they have passed, and `keep_pace` stops the host from running more than a few ticks ahead.

    Args:
        device: where the networks run.
        clock: seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._device, self._kind = device, device.partition(":")[0]
        self._events: deque[tuple[Any, Any, Callable[[float], None]]] = deque()

    def time(self, run: Callable[[], T], note: Callable[[float], None]) -> T:
        """What ``run`` returns; ``note`` is told the seconds, now or later."""
        if self._kind == "cpu":
            began = self._clock()
            answer = run()
            note(self._clock() - began)
            return answer
        device: Any = getattr(importlib.import_module("torch"), self._kind)
        stream = [device.current_stream(self._device)] if hasattr(device, "current_stream") else []
        start, end = device.Event(enable_timing=True), device.Event(enable_timing=True)
        start.record(*stream)
        answer = run()
        end.record(*stream)
        self._events.append((start, end, note))
        return answer

    def keep_pace(self, calls: int) -> None:
        """Wait until at most so many calls are under way; read those that are over."""
        while self._events and (len(self._events) > calls or self._events[0][1].query()):
            start, end, note = self._events.popleft()
            end.synchronize()
            note(start.elapsed_time(end) / 1000)
