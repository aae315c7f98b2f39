"""One request in flight: what it has so far, and what each stage but sampling does with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from perrin.engine.events import Event, File, Finished, Progress, Request
from perrin.errors import InvalidInput
from perrin.inputs import put
from perrin.modality import Format, Modality, Parameters, Runtime
from perrin.models import ModelCard

__all__ = ["Flight"]


@dataclass(eq=False, slots=True)
class Flight:
    """A request and everything the engine knows about it.

    Attributes:
        stage: the stage it waits in; ``new`` before the first.
        model: key of its model, see `perrin.engine.memory.key_of`.
        run: its sampling run, once encoded. One without ``request`` and ``apply`` is stepped alone.
        member: what its next row wants evaluated, once asked; None before.
        served: number of the last tick that advanced its sampling.
        pace: seconds from row to row, lately; only known where there is a deadline.
        moved: when its last row was done, likewise.
        hurried: it was about to miss its deadline, and goes first.
        shown: when its last preview was made.
        made: where its results come from one by one, what gives the next.
        results: those that are there.
    """

    request: Request
    face: Modality
    card: ModelCard
    parameters: Parameters
    kind: Format
    model: str
    stage: str = "new"
    runtime: Any = None
    run: Any = None
    alone: bool = False
    keys: Any = None
    member: Any = None
    served: int = -1
    pace: float = 0.0
    moved: float | None = None
    hurried: bool = False
    shown: float = 0.0
    made: Iterator[Any] | None = None
    results: list[Any] = field(default_factory=list)
    files: list[File] = field(default_factory=list)

    @property
    def strict(self) -> bool:
        """It shares no network call with other requests."""
        return self.request.strict or self.parameters.strict

    def encode(self, runtime: Runtime, now: float) -> list[Event]:
        """Start its run, or go on with the one it was saved from."""
        rid = self.request.id
        self.runtime = runtime
        run = runtime.start(self.parameters, *self._inputs())
        if self.request.state is not None:
            run.restore(self.request.state)
        self.run, self.shown = run, now
        self.alone = not (hasattr(run, "request") and hasattr(run, "apply"))
        self.stage = "step"
        return [Progress(rid, "encode", 1, 1), Progress(rid, "step", run.row, len(run.plan)), *self.stepped()]

    def stepped(self) -> list[Event]:
        """After a row: whether decoding is next."""
        if not self.run.done:
            return []
        self.stage, self.member = "decode", None
        return [Progress(self.request.id, "decode", 0, 1)]

    def decode(self) -> list[Event]:
        """Make the results; one of them, where the runtime makes them one by one."""
        rid, done, total = self.request.id, len(self.results), 1
        if self.made is None:
            made = self.runtime.decode(self.run.result, self.parameters, *self._inputs())
            self.made = made if isinstance(made, Iterator) else None
            self.results += () if self.made is not None else made
        if self.made is not None:
            self.results.append(next(self.made))
            total = self.parameters.count
        for result in self.results[done:]:
            self.runtime.check(result)
        if len(self.results) < total:
            return [Progress(rid, "decode", len(self.results), total)]
        self.stage, self.made = "write", None
        writes = 1 if self.kind.many else len(self.results)
        return [Progress(rid, "decode", total, total), Progress(rid, "write", 0, writes)]

    def write(self) -> list[Event]:
        """Make the next file; after the last one the request is finished."""
        rid, results, number = self.request.id, self.results, len(self.files)
        items = tuple(range(len(results))) if self.kind.many else (number,)
        total = 1 if self.kind.many else len(results)
        if total:
            metadata = self._metadata(items)
            data = self.runtime.export([results[i] for i in items], self.kind, metadata)
            name = f"all.{self.kind.name}" if self.kind.many else f"{items[0]}.{self.kind.name}"
            self.files.append(File(name, self.kind.media_type, data, items, metadata))
        events: list[Event] = [Progress(rid, "write", len(self.files), total)]
        if len(self.files) == total:
            events.append(Finished(rid, tuple(self.files), tuple(results)))
        return events

    def _inputs(self) -> tuple[Any, ...]:
        """For runtimes of modalities that take files, those of this request."""
        return (self.request.inputs,) if self.face.takes_files else ()

    def _metadata(self, items: tuple[int, ...]) -> dict[str, Any]:
        """Everything needed to make these items again: for one item, what makes it alone."""
        from perrin import __version__

        values = self.parameters.model_dump(mode="json")
        if self.parameters.seed is None:
            raise InvalidInput("seed", None, "an integer: resolve the parameters before running them")
        for path, file in self.request.inputs.items():  # ids are of one platform; what a file was made of is not
            values = put(values, path, f"sha256:{file.sha256}")
        if len(items) == 1:
            values |= self.parameters.item(items[0])
        also = getattr(self.runtime, "also", None)
        others = also(self.parameters) if also is not None else None
        return {
            "perrin": __version__,
            "modality": self.face.name,
            "model": self.card.name,
            "model_sha256": self.card.sha256,
            "parameters": values,
            **({"models": dict(others)} if others else {}),
            **self.request.metadata,
        }
