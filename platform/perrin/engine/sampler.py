"""One tick's sampling: a row of every request that is its turn, in as few network calls as pay.

Requests whose first branch has the same key form a lane. Lanes take turns in the fair order, until the tick has taken
its time; whoever is left is first in the next one. How many samples go into a call is the smaller of what is measured
to be fastest (`perrin.engine.cost`) and what fits (`perrin.engine.memory`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from perrin.engine.cost import Curve, Stopwatch
from perrin.engine.events import Event, Failed, Preview, Progress
from perrin.engine.fair import interleave
from perrin.engine.flight import Flight
from perrin.engine.memory import Gauge, Working, is_out_of_memory
from perrin.errors import OutOfMemory

if TYPE_CHECKING:
    from perrin.engine.batch import Member, Stacker

__all__ = ["Sampler"]

SHARE = 4
"""One tick in so many belongs to everybody, whatever priorities and deadlines there are."""

AHEAD = 3
"""Network calls that the host may be ahead of an accelerator."""

SLACK = 1.25
"""A deadline is in danger when what is left takes so much less than the time that is left."""


class Sampler:
    """Advances requests by one row.

    Args:
        device: where the networks run.
        clock: seconds.
        gauge: reads the device's memory.
        doing: is told the stage and the requests before anything of a plugin is called.
        make_room: unloads models that nobody uses; whether there were any.
        seconds: a tick's time; at least one lane is served.
        preview_seconds: least time between two previews of a request.
    """

    def __init__(
        self,
        device: str,
        clock: Callable[[], float],
        gauge: Gauge,
        doing: Callable[[str, Sequence[str]], None],
        make_room: Callable[[], bool],
        seconds: float,
        preview_seconds: float,
    ) -> None:
        self._clock, self._gauge, self._doing, self._make_room = clock, gauge, doing, make_room
        self._seconds, self._preview_seconds = seconds, preview_seconds
        self._device = device
        self._watch = Stopwatch(device, clock)
        self._tick = 0
        self.curves: dict[Hashable, Curve] = {}
        """Latency by model and shape."""
        self.working = Working()
        """Working memory by model and shape."""
        self.stackers: dict[str, Stacker] = {}
        """By model."""

    @cached_property
    def _batch(self) -> Any:
        """`perrin.engine.batch`, which brings torch: a plugin may do without."""
        return importlib.import_module("perrin.engine.batch")

    def tick(self, flights: Sequence[Flight], events: list[Event]) -> None:
        """A row of those whose turn it is; what happened is added to ``events``."""
        if all(flight.alone for flight in flights):
            self._serve(flights, events)
        else:
            with self._batch.torch.inference_mode():
                self._serve(flights, events)

    def _serve(self, flights: Sequence[Flight], events: list[Event]) -> None:
        self._tick += 1
        began = self._clock()
        self._watch.keep_pace(AHEAD)
        lanes, passengers = self._lanes(flights, began, events)
        served = False
        for key, lane in lanes.items():
            if served and self._clock() - began > self._seconds:
                break
            self._lane(lane, passengers.get(key, ()), began, events)
            served = True

    def forget(self) -> None:
        """Nothing is in flight: let go of what was kept for the next tick."""
        for stacker in self.stackers.values():
            stacker.forget()

    # --- who ----------------------------------------------------------------------------------------------------------

    def _lanes(
        self, flights: Sequence[Flight], now: float, events: list[Event]
    ) -> tuple[dict[Hashable, list[Flight]], dict[Hashable, list[Flight]]]:
        """Requests by lane, in the fair order: those of the highest level, and those that may ride along."""
        levels = [self._level(flight, now) for flight in flights]
        top = max(levels)
        exclusive = self._tick % SHARE != 0 and min(levels) < top
        urgent = {id(f) for f, level in zip(flights, levels, strict=True) if level == top} if exclusive else None
        lanes: dict[Hashable, list[Flight]] = {}
        riders: dict[Hashable, list[Flight]] = {}
        for flight in interleave(flights):
            key: Hashable = id(flight)
            if not flight.alone:
                try:
                    member = flight.member or self._ask(flight)
                except Exception as error:  # a plugin's guidance may raise anything; it ends this request alone
                    events.append(Failed(flight.request.id, error))
                    continue
                if member.keys[0] is not None and not flight.strict:
                    key = member.keys[0]
            (lanes if urgent is None or id(flight) in urgent else riders).setdefault(key, []).append(flight)
        return lanes, riders

    def _level(self, flight: Flight, now: float) -> float:
        """Its priority; above all others if it would miss its deadline."""
        deadline = flight.request.deadline
        if deadline is None or now >= deadline:
            return flight.request.priority
        left = (len(flight.run.plan) - flight.run.row) * flight.pace
        flight.hurried = flight.hurried or now + left * SLACK >= deadline  # once it is, or it would fall behind again
        return float("inf") if flight.hurried else flight.request.priority

    def _ask(self, flight: Flight) -> Member:
        if flight.keys is None:
            flight.keys = self._batch.Keys(getattr(flight.runtime, "padding", None))
        evaluation = flight.run.request()
        flight.member = self._batch.Member(evaluation, flight.keys.of(evaluation))
        member: Member = flight.member
        return member

    # --- one lane -----------------------------------------------------------------------------------------------------

    def _lane(self, lane: list[Flight], riders: Sequence[Flight], began: float, events: list[Event]) -> None:
        first = lane[0]
        if first.alone:
            self._step_alone(first, events)
            return
        members = [flight.member for flight in lane]
        name = self._name(first.model, first.member.keys[0])
        curve = self.curves.setdefault(name, Curve())
        wanted = sum(member.samples for member in members)
        if riders:
            room = curve.passengers(wanted, wanted + sum(f.member.samples for f in riders)) - wanted
            for flight in riders:
                room -= flight.member.samples
                if room < 0:
                    break
                lane.append(flight)
                members.append(flight.member)
            wanted = sum(member.samples for member in members)
        size = curve.best(wanted)
        if len(lane) > 1 and curve.total(wanted, size) > self._seconds:
            lane, members = self._cut(lane, members, curve, size, began)
            wanted = sum(member.samples for member in members)
        most = self.working.limit(name, wanted, self._gauge.room)
        stacker = self.stackers.get(first.model)
        if stacker is None:
            stacker = self.stackers[first.model] = self._batch.Stacker(getattr(first.runtime, "padding", None))
        self._doing("step", [flight.request.id for flight in lane])

        def call(key: Hashable, samples: int, run: Callable[[], Any]) -> Any:
            return self._call(self._name(first.model, key), samples, run)

        answers = stacker.evaluate(members, curve.choose(wanted), most, call)
        now = self._clock()
        for flight, answer in zip(lane, answers, strict=True):
            if isinstance(answer, Exception):
                events.append(Failed(flight.request.id, answer))
                continue
            try:
                flight.run.apply(flight.member.evaluation, answer)
                self._moved(flight, now, events)
            except Exception as error:  # it ends this request alone
                events.append(Failed(flight.request.id, error))

    def _cut(
        self, lane: list[Flight], members: list[Member], curve: Curve, size: int, began: float
    ) -> tuple[list[Flight], list[Member]]:
        """As many of a lane as fit into what is left of the tick's time; at least one, and no fewer than pays."""
        size = curve.smallest(size)
        left = self._seconds - (self._clock() - began)
        kept, samples = 0, 0
        for member in members:
            samples += member.samples
            if kept and samples > size and curve.total(samples, size) > left:
                break
            kept += 1
        return lane[:kept], members[:kept]

    def _call(self, name: Hashable, samples: int, run: Callable[[], Any]) -> Any:
        """One network call, measured; where memory is short for a single sample, tried again with idle models gone."""
        curve = self.curves.setdefault(name, Curve())
        measured = self._device != "cpu" and not self.working.knows(name, samples)
        if measured:
            self._gauge.peak()
            before = self._gauge.used()
        try:
            answer = self._watch.time(run, lambda seconds: curve.note(samples, seconds))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.working.exceeded(name, samples)
            self._gauge.release()
            if samples > 1:
                raise
            needed, room = self.working.needed(name, samples), self._gauge.room()
            if not self._make_room():
                raise OutOfMemory(f"one sample on {self._device}", needed, int(room)) from error
            return self._last(name, run)
        if measured:
            self.working.note(name, samples, self._gauge.peak() - before)
        return answer

    def _last(self, name: Hashable, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            needed = self.working.needed(name, 1)
            raise OutOfMemory(f"one sample on {self._device}", needed, int(self._gauge.room())) from error

    def _name(self, model: str, key: Any) -> Hashable:
        """What latency and memory are remembered under: the model and the shape."""
        return (model, "alone") if key is None else (model, key.shape, key.traits)

    def _step_alone(self, flight: Flight, events: list[Event]) -> None:
        """One step of a run that asks for no evaluation, outside of inference mode: it may want gradients."""
        self._doing("step", [flight.request.id])
        torch = sys.modules.get("torch")
        try:
            with nullcontext() if torch is None else torch.inference_mode(False):
                flight.run.step()
            self._moved(flight, self._clock(), events)
        except Exception as error:  # it ends this request alone
            events.append(Failed(flight.request.id, error))

    def _moved(self, flight: Flight, now: float, events: list[Event]) -> None:
        """A row is done: say so, with a preview if one is due."""
        run, request = flight.run, flight.request
        flight.member = None
        flight.served = self._tick
        if request.deadline is not None:
            if flight.moved is not None:
                flight.pace = now - flight.moved if not flight.pace else 0.7 * flight.pace + 0.3 * (now - flight.moved)
            flight.moved = now
        events.append(Progress(request.id, "step", run.row, len(run.plan)))
        if run.done:
            events += flight.stepped()
        elif request.previews and now - flight.shown >= self._preview_seconds:
            png = flight.runtime.preview(run.clean)
            flight.shown = now
            if png is not None:
                events.append(Preview(request.id, run.row, png))
