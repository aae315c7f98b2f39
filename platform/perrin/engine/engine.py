"""The loop around one device.

Every tick advances one request by one unit of one stage: load its model, encode its condition, one sampler row, decode,
write one file. Requests take turns, so none waits for another to finish before it starts. A request that raises ends
alone, with its reason.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from perrin import plugins
from perrin.engine.events import Event, Failed, File, Finished, Preview, Progress, Request
from perrin.errors import Conflict, InvalidInput
from perrin.modality import Modality, Parameters, Runtime
from perrin.models import ModelCard, find

__all__ = ["Engine"]


@dataclass
class _Flight:
    """A request in flight: its stages as a generator that the engine advances, and its sampler once it has one."""

    request: Request
    stages: Iterator[list[Event]]
    run: Any = None


class Engine:
    """Holds models and requests on one device.

    Args:
        device: where the models run: ``cpu``, ``cuda:0``, ``mps``.
        capacity: requests in flight at once.
        resident: models kept in memory; the one used longest ago makes room.
        preview_seconds: least time between two previews of a request.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        capacity: int = 4,
        resident: int = 2,
        preview_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.capacity = capacity
        self._resident = resident
        self._preview_seconds = preview_seconds
        self._clock = clock
        self._flights: OrderedDict[str, _Flight] = OrderedDict()
        self._models: OrderedDict[str, Runtime] = OrderedDict()

    @property
    def requests(self) -> tuple[str, ...]:
        """Ids of the requests in flight; the first one is advanced by the next tick."""
        return tuple(self._flights)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, the one used last at the end."""
        return tuple(self._models)

    @property
    def free(self) -> int:
        """How many more requests `admit` would take now."""
        return self.capacity - len(self._flights)

    def admit(self, request: Request) -> None:
        """Take a request in; it starts with one of the next ticks.

        Raises:
            Conflict: a request of this id is in flight, or the engine is full.
            InvalidInput: unknown modality, model, format or parameter.
        """
        if request.id in self._flights:
            raise Conflict(f"request {request.id} is in flight already")
        if self.free < 1:
            raise Conflict(f"the engine holds {self.capacity} requests, its capacity; admit after one has finished")
        face = plugins.modality(request.modality)
        parameters = face.parameters.model_validate(dict(request.parameters))
        card = find(parameters.model or face.default_model, face.name)
        flight = _Flight(request, iter(()))
        flight.stages = self._stages(flight, face, card, parameters.resolved(card))
        self._flights[request.id] = flight

    def cancel(self, request_id: str) -> None:
        """Forget a request; nothing more is heard of it."""
        self._flights.pop(request_id, None)

    def save(self, request_id: str) -> bytes | None:
        """The sampler state of a request, to be handed to `Request.state` later and anywhere; None before sampling."""
        flight = self._flights.get(request_id)
        return flight.run.save() if flight is not None and flight.run is not None else None

    def tick(self) -> list[Event]:
        """Advance the request whose turn it is by one unit; the events of it."""
        if not self._flights:
            return []
        request_id, flight = next(iter(self._flights.items()))
        self._flights.move_to_end(request_id)
        try:
            events = next(flight.stages)
        except Exception as error:  # a plugin may raise anything; it ends this request alone
            events = [Failed(request_id, error)]
        if any(isinstance(event, Finished | Failed) for event in events):
            del self._flights[request_id]
        return events

    def _stages(
        self, flight: _Flight, face: Modality, card: ModelCard, parameters: Parameters
    ) -> Iterator[list[Event]]:
        request, rid = flight.request, flight.request.id
        kind = face.format(request.format)
        yield [Progress(rid, "load", 0, 1)]
        model = self.model(face, card)
        yield [Progress(rid, "load", 1, 1), Progress(rid, "encode", 0, 1)]
        run = model.start(parameters)
        if request.state is not None:
            run.restore(request.state)
        flight.run = run
        yield [Progress(rid, "encode", 1, 1), Progress(rid, "step", run.row, len(run.plan))]
        shown = self._clock()
        while not run.done:
            run.step()
            events: list[Event] = [Progress(rid, "step", run.row, len(run.plan))]
            if request.previews and not run.done and self._clock() - shown >= self._preview_seconds:
                png = model.preview(run.clean)
                shown = self._clock()
                if png is not None:
                    events.append(Preview(rid, run.row, png))
            yield events
        yield [Progress(rid, "decode", 0, 1)]
        results = model.decode(run.result, parameters)
        for result in results:
            model.check(result)
        groups = [tuple(range(len(results)))] if kind.many else [(i,) for i in range(len(results))]
        yield [Progress(rid, "decode", 1, 1), Progress(rid, "write", 0, len(groups))]
        files = []
        for number, items in enumerate(groups):
            metadata = _metadata(face, card, parameters, items, request)
            data = model.export([results[i] for i in items], kind, metadata)
            name = f"all.{kind.name}" if kind.many else f"{items[0]}.{kind.name}"
            files.append(File(name, kind.media_type, data, items, metadata))
            last = number + 1 == len(groups)
            yield [
                Progress(rid, "write", number + 1, len(groups)),
                *([Finished(rid, tuple(files), tuple(results))] if last else []),
            ]

    def model(self, face: Modality, card: ModelCard) -> Runtime:
        """The model that ``card`` describes, loaded if it is not in memory."""
        key = f"{card.name}@{card.sha256}"
        if key not in self._models:
            while len(self._models) >= self._resident:
                self._models.popitem(last=False)
            self._models[key] = plugins.runtime(face).load(card, self.device)
        self._models.move_to_end(key)
        return self._models[key]


def _metadata(
    face: Modality, card: ModelCard, parameters: Parameters, items: tuple[int, ...], request: Request
) -> dict[str, Any]:
    """Everything needed to make these items again: for one item, its own seed and a count of one."""
    from perrin import __version__

    values = parameters.model_dump(mode="json")
    if parameters.seed is None:
        raise InvalidInput("seed", None, "an integer: resolve the parameters before running them")
    if len(items) == 1:
        values |= {"seed": parameters.seed + items[0], "count": 1}
    return {
        "perrin": __version__,
        "modality": face.name,
        "model": card.name,
        "model_sha256": card.sha256,
        "parameters": values,
        **request.metadata,
    }
