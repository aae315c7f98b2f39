"""The loop around one device.

Every tick does a bit of everything that is to be done: announces new requests, loads a model, encodes, computes one
sampler row of every request that is sampling, decodes, writes. Rows of requests that ask for the same network at the
same shape are computed in one call, whatever their sampler, steps and guidance. None waits for another to finish before
it starts, and a request that raises ends alone, with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from perrin import plugins
from perrin.engine.events import Doing, Event, Failed, Finished, Progress, Request
from perrin.engine.fair import Line
from perrin.engine.flight import Flight
from perrin.engine.memory import Gauge, Models, gauge_of, key_of
from perrin.engine.sampler import Sampler
from perrin.errors import Conflict, InvalidInput, NotFound
from perrin.inputs import slots
from perrin.modality import Modality, Runtime
from perrin.models import ModelCard, find

__all__ = ["Engine"]

CARD_SECONDS = 2.0
"""A model's card is looked up again after this long."""


class Engine:
    """Holds models and requests on one device. Not for several threads at once; see `perrin.engine.Driver`.

    The engine has no thread and cannot interrupt a plugin that hangs. Before it calls one it sets `doing`, and tells
    ``report``, what it calls and for which requests; a supervisor in another process that hears of no progress for too
    long ends this process, and knows whom to blame.

    Args:
        device: where the models run: ``cpu``, ``cuda:0``, ``mps``.
        capacity: requests in flight at once; others wait in line.
        memory: bytes that the models' weights may take together; None goes by what the device has left.
        tick_seconds: what a tick of sampling should take; those who had no turn are first in the next one.
        preview_seconds: least time between two previews of a request.
        clock: seconds, monotonic.
        report: told what the engine is about to do.
        gauge: reads the device's memory; the device's own by default.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        capacity: int = 32,
        memory: int | None = None,
        tick_seconds: float = 0.5,
        preview_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[Doing], None] | None = None,
        gauge: Gauge | None = None,
    ) -> None:
        self.device = device
        self.capacity = capacity
        self.report = report
        self.doing: Doing | None = None
        """What a plugin is being called for; None between calls."""
        self._tick_seconds, self._clock = tick_seconds, clock
        self._gauge = gauge or gauge_of(device)
        self._models = Models(device, memory, self._gauge, clock)
        self._line = Line()
        self._flights: dict[str, Flight] = {}
        self._paused: dict[str, Flight] = {}
        self._admitted: dict[str, Flight] = {}
        self._cards: dict[tuple[str, str], tuple[float, ModelCard]] = {}
        self._events: list[Event] = []
        self._starved: str | None = None
        self._sampler = Sampler(device, clock, self._gauge, self._do, self._make_room, tick_seconds, preview_seconds)

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> tuple[str, ...]:
        """Ids of all requests: in flight, paused, and waiting in line."""
        return (*self._flights, *self._paused, *self._line)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory as ``name@hash``, the one used last at the end."""
        return self._models.keys

    @property
    def free(self) -> int:
        """How many more requests would be in flight at once; more than that wait in line."""
        return max(0, self.capacity - len(self._flights) - len(self._paused) - len(self._line))

    @property
    def active(self) -> bool:
        """Whether a tick would do something: there are requests that are not paused."""
        return bool(self._flights or (self._line and len(self._paused) < self.capacity))

    @property
    def padding(self) -> float:
        """Part of the entries computed so far that was padding, 0 to 1."""
        stackers = self._sampler.stackers.values()
        return sum(s.padded for s in stackers) / max(1, sum(s.entries for s in stackers))

    @property
    def curves(self) -> dict[str, list[dict[int, float]]]:
        """Measured seconds of a network call by its number of samples; for every shape, by model."""
        found: dict[str, list[dict[int, float]]] = {}
        for name, curve in self._sampler.curves.items():
            found.setdefault(name[0], []).append(curve.measured)  # type: ignore[index]
        return found

    # --- between two ticks --------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Take a request in; it starts with the next tick, or waits in line if the engine is full.

        Raises:
            Conflict: a request of this id is here already.
            InvalidInput: unknown modality, model, format or parameter, or a file that is not there.
        """
        if request.id in self._flights or request.id in self._paused or request.id in self._line:
            raise Conflict(f"request {request.id} is in flight already")
        face = plugins.modality(request.modality)
        parameters = face.parameters.model_validate(dict(request.parameters))
        kind = face.format(request.format)
        parameters.check_format(kind)
        for slot in slots(face.input_schema, parameters.model_dump(mode="json")) if face.takes_files else ():
            if slot.path not in request.inputs:
                raise InvalidInput(slot.path, slot.value, "its file as well, among the request's inputs")
        card = self._card(parameters.model or face.default_model, face.name)
        flight = Flight(request, face, card, parameters.resolved(card), kind, key_of(card))
        self._admitted[request.id] = flight
        self._line.join(request)

    def cancel(self, request_id: str) -> None:
        """Forget a request; nothing more is heard of it."""
        for place in (self._flights, self._paused, self._admitted):
            place.pop(request_id, None)
        self._line.leave(request_id)

    def pause(self, request_id: str) -> None:
        """Keep a request in memory as it is, and its place in the engine, but do not go on with it.

        Raises:
            NotFound: no such request is in flight.
        """
        if request_id not in self._flights:
            raise NotFound(f"request {request_id} is not in flight")
        self._paused[request_id] = self._flights.pop(request_id)

    def resume(self, request_id: str) -> None:
        """Go on with a request that was paused.

        Raises:
            NotFound: no such request is paused.
        """
        if request_id not in self._paused:
            raise NotFound(f"request {request_id} is not paused")
        self._flights[request_id] = self._paused.pop(request_id)

    def save(self, request_id: str) -> bytes | None:
        """The sampler state of a request, to be handed to `Request.state` later and anywhere; None before sampling.

        It is a safetensors file, with the plan's hash, row, seeds and shape as JSON in its header.
        """
        flight = self._flights.get(request_id) or self._paused.get(request_id)
        return flight.run.save() if flight is not None and flight.run is not None else None

    def pin(self, model: str) -> None:
        """Keep the model of this name in memory once it is loaded."""
        self._models.pinned.add(model)

    def unpin(self, model: str) -> None:
        """Let the model make room for others again."""
        self._models.pinned.discard(model)

    def model(self, face: Modality, card: ModelCard) -> Runtime:
        """The model that ``card`` describes, loaded if it is not in memory.

        Raises:
            Conflict: there is no room for it now.
        """
        key = key_of(card)
        if key not in self._models and not self._models.load("", face, card, self._busy(), self._events):
            raise Conflict(f"model {card.name} finds no room beside those that are pinned or in use; try again later")
        return self._models.use(key)

    # --- the tick -----------------------------------------------------------------------------------------------------

    def tick(self) -> list[Event]:
        """Advance what is in flight by one unit; the events of it.

        A request is announced in its first tick. It is encoded and has its first row computed in the next one, or, if
        its model is not in memory, in the one after that has loaded it.
        """
        events = self._events  # kept until the tick is over, whatever interrupts it
        self._let_go(events)
        self._take_in()
        preparing, sampling, finishing = [], [], []
        for flight in self._flights.values():
            if flight.stage == "step":
                sampling.append(flight)
            elif flight.stage in ("decode", "write"):
                finishing.append(flight)
            else:
                preparing.append(flight)
        if preparing:
            self._prepare(preparing, events)
            sampling += [flight for flight in preparing if flight.stage == "step"]
        if sampling:
            self._sampler.tick(sampling, events)
        if finishing:
            self._each(finishing, events, self._finish)
        self.doing, self._events = None, []
        self._let_go(events)
        if not self._flights:
            self._sampler.forget()
        return events

    def _let_go(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Finished | Failed):
                self._flights.pop(event.id, None)

    def _take_in(self) -> None:
        while self._line and len(self._flights) + len(self._paused) < self.capacity:
            owners: dict[str, int] = {}
            for flight in (*self._flights.values(), *self._paused.values()):
                owners[flight.request.owner] = owners.get(flight.request.owner, 0) + 1
            request = self._line.take(owners)
            if request is not None:
                self._flights[request.id] = self._admitted.pop(request.id)

    def _prepare(self, flights: list[Flight], events: list[Event]) -> None:
        """Announce what is new; encode what has its model; load one model."""
        loading = [flight for flight in flights if flight.stage == "load"]
        ids = [flight.request.id for flight in flights]
        first = ids.index(self._starved) if self._starved in ids else len(flights)
        # Behind one whose model found no room nobody is encoded, or the models in use would never be idle.
        encoding = [flight for flight in flights[:first] if flight.stage == "encode"]
        for flight in flights:
            if flight.stage == "new":
                events.append(Progress(flight.request.id, "load", 0, 1))
                flight.stage = "load"
                self._has_model(flight, events)
        self._each(encoding, events, self._encode)
        self._each(loading[:1], events, self._load)
        for flight in loading[1:]:
            self._has_model(flight, events)

    def _has_model(self, flight: Flight, events: list[Event]) -> None:
        if flight.model in self._models:
            flight.stage = "encode"
            rid = flight.request.id
            events += [Progress(rid, "load", 1, 1), Progress(rid, "encode", 0, 1)]

    def _load(self, flight: Flight, events: list[Event]) -> None:
        if flight.model not in self._models:
            self._do("load", [flight.request.id])
            found = self._models.load(flight.request.id, flight.face, flight.card, self._busy(), events)
            self._starved = None if found else flight.request.id
            self._sampler.working.relax()
        self._has_model(flight, events)

    def _encode(self, flight: Flight, events: list[Event]) -> None:
        if flight.model not in self._models:  # it was unloaded meanwhile
            flight.stage = "load"
            return
        self._do("encode", [flight.request.id])
        events += flight.encode(self._models.use(flight.model), self._clock())

    def _finish(self, flight: Flight, events: list[Event]) -> None:
        self._do(flight.stage, [flight.request.id])
        events += flight.decode() if flight.stage == "decode" else flight.write()

    def _each(
        self, flights: Sequence[Flight], events: list[Event], work: Callable[[Flight, list[Event]], None]
    ) -> None:
        """``work`` on each, while the tick's time lasts; whoever raises ends alone."""
        began = self._clock()
        for flight in flights:
            try:
                work(flight, events)
            except Exception as error:  # a plugin may raise anything
                events.append(Failed(flight.request.id, error))
            if self._clock() - began > self._tick_seconds:
                break

    def _busy(self) -> set[str]:
        """Models that requests have a run of."""
        flights = (*self._flights.values(), *self._paused.values())
        return {flight.model for flight in flights if flight.runtime is not None}

    def _make_room(self) -> bool:
        found = False
        while (unloaded := self._models.unload_one("", self._busy())) is not None:
            self._events.append(unloaded)
            found = True
        return found

    def _do(self, stage: str, ids: Sequence[str]) -> None:
        self.doing = Doing(stage, tuple(ids), self._clock())
        if self.report is not None:
            self.report(self.doing)

    def _card(self, name: str, modality: str) -> ModelCard:
        now = self._clock()
        found = self._cards.get((name, modality))
        if found is None or now - found[0] > CARD_SECONDS:
            found = self._cards[name, modality] = (now, find(name, modality))
        return found[1]
