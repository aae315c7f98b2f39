"""Generation in this process: no services, no queue, the same engine that workers run.

::

    import perrin

    generate = perrin.load("image")
    apples = generate("a red apple", seed=7, count=4)
    apples.save("apple.png")        # apple-0.png ... apple-3.png
    apples[2].save("third.png")     # the item of seed 9; alone it is generate("a red apple", seed=9)
    pair = generate(["a red apple", "a pear"], steps=8)     # two requests that share network calls

Calls from several threads share network calls too.
"""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from perrin import plugins
from perrin.engine import Driver, Engine, Event, File, Finished, Request, Ticket
from perrin.engine import Progress as ProgressEvent
from perrin.errors import InvalidInput, NotInstalled
from perrin.files import check_writable, numbered, write_files
from perrin.inputs import InputFile, local_files
from perrin.modality import Format, Modality, Parameters, Progress, validate
from perrin.models import ModelCard, find
from perrin.settings import Settings

__all__ = ["Generator", "Result", "Results", "device_of", "load"]


def load(modality: str, *, model: str | None = None, device: str | None = None) -> Generator:
    """A model, ready to generate in this process.

    Args:
        modality: what to make, such as ``"image"``.
        model: the model's name; the modality's default if left out.
        device: cpu, cuda, cuda:N, mps or auto. Default: PERRIN_DEVICE.

    Raises:
        UnknownName: no such modality or model; lists those there are.
        NotInstalled: the ``run`` extra is missing.
    """
    settings = Settings()
    face = plugins.modality(modality)
    card = find(model or face.default_model, face.name, settings)
    return Generator(face, card, device_of(device or settings.device, settings.threads))


class Generator:
    """One model on one device; call it to make things, from any thread. The weights are read at the first call and
    kept."""

    def __init__(self, face: Modality, card: ModelCard, device: str) -> None:
        plugins.runtime(face)  # says now, not after the first call, that something is not installed
        self._face = face
        self._card = card
        self._device = device
        self._driver = Driver(Engine(device, memory=Settings().memory))

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._card

    @property
    def device(self) -> str:
        """Where the model runs."""
        return self._device

    def __repr__(self) -> str:
        return f"Generator({self._face.name!r}, model={self._card.name!r}, device={self.device!r})"

    @overload
    def __call__(
        self,
        prompt: str | None = None,
        *,
        format: str | None = None,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> Results: ...
    @overload
    def __call__(
        self,
        prompt: Sequence[str | Mapping[str, Any]],
        *,
        format: str | None = None,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> list[Results]: ...
    def __call__(
        self,
        prompt: str | Sequence[str | Mapping[str, Any]] | None = None,
        *,
        format: str | None = None,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> Results | list[Results]:
        """Make what is asked for.

        Args:
            prompt: fills the parameter ``prompt`` where the modality has one. A list makes one `Results` for each
                entry, sharing network calls; an entry is a prompt, or a mapping of parameters of its own.
            format: file format of ``Results.files``; the modality's first one if left out.
            progress: called with (done, total, stage); for a list, with the finished entries as the stage ``list``.
            parameters: the modality's own; what is left out is the model's default. A file is a path or bytes.

        Raises:
            InvalidInput: names the parameter and its range.
        """
        kind = self._face.format(format) if format else self._face.formats[0]
        if prompt is None or isinstance(prompt, str):
            asked = self._asked(prompt, parameters)
            with self._submitted([asked], kind, progress) as (ticket,):
                return Results(self, asked[0], kind, ticket.wait())
        many = []
        for entry in prompt:
            own: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
            many.append(self._asked(None if isinstance(entry, Mapping) else entry, {**parameters, **own}))
        made = []
        with self._submitted(many, kind, None) as tickets:
            for asked, ticket in zip(many, tickets, strict=True):
                made.append(Results(self, asked[0], kind, ticket.wait()))
                if progress is not None:
                    progress(len(made), len(many), "list")
        return made

    def _asked(self, prompt: str | None, parameters: Mapping[str, Any]) -> tuple[Parameters, dict[str, InputFile]]:
        values = {"model": self._card.name, **parameters}
        if prompt is not None:
            if "prompt" not in self._face.parameters.model_fields:
                raise InvalidInput("prompt", prompt, f"none: {self._face.name} takes no prompt")
            values["prompt"] = prompt
        values, files = local_files(self._face.input_schema, values)
        return validate(self._face, values).resolved(self._card), files

    @contextmanager
    def _submitted(
        self, asked: Sequence[tuple[Parameters, dict[str, InputFile]]], kind: Format, progress: Progress | None
    ) -> Iterator[list[Ticket]]:
        def news(event: Event) -> None:
            if progress is not None and isinstance(event, ProgressEvent):
                progress(event.done, event.total, event.stage)

        requests = [
            Request(uuid.uuid4().hex, self._face.name, one.model_dump(), kind.name, inputs=files)
            for one, files in asked
        ]
        tickets: list[Ticket] = []
        try:
            tickets += self._driver.submit(requests, news if progress is not None else None)
            yield tickets
        finally:
            for ticket in tickets:
                ticket.cancel()

    def _export(self, values: Sequence[Any], kind: Format, metadata: Mapping[str, Any]) -> bytes:
        engine = self._driver.engine
        return self._driver.call(lambda: engine.model(self._face, self._card).export(values, kind, metadata))


class Results(Sequence["Result"]):
    """What a call made: a sequence of `Result`, item i of seed + i."""

    def __init__(self, generator: Generator, parameters: Parameters, kind: Format, done: Finished) -> None:
        self._generator = generator
        self._kind = kind
        self._values = done.results
        self.files: tuple[File, ...] = done.files
        """The finished files, as bytes with their metadata."""
        self.parameters = parameters
        """Every value used, the seed too."""

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        chosen = range(len(self))[index]
        return Result(self, chosen) if isinstance(chosen, int) else tuple(Result(self, i) for i in chosen)

    def __repr__(self) -> str:
        return f"Results({len(self)} x {self._generator._face.name}, seed={self.parameters.seed})"

    def save(self, path: str | Path) -> tuple[Path, ...]:
        """Write everything; where it is.

        Args:
            path: a file name; its ending chooses the format. Several files are numbered: ``apple-0.png``,
                ``apple-1.png``, unless the format holds many items in one.

        Raises:
            InvalidInput: no such format, or the path cannot be written.
        """
        target, kind = self._target(path)
        groups = [tuple(range(len(self)))] if kind.many else [(i,) for i in range(len(self))]
        paths = numbered(target, len(groups))
        check_writable(paths)
        return write_files({at: self._bytes(items, kind) for at, items in zip(paths, groups, strict=True)})

    def _target(self, path: str | Path) -> tuple[Path, Format]:
        target = Path(path).expanduser()
        return target, self._generator._face.format(target.suffix)

    def _bytes(self, items: tuple[int, ...], kind: Format) -> bytes:
        for file in self.files:
            if kind == self._kind and file.items == items:
                return file.data
        return self._generator._export([self._values[i] for i in items], kind, self._metadata(items))

    def _metadata(self, items: tuple[int, ...]) -> dict[str, Any]:
        values = dict(self.files[0].metadata["parameters"])
        first = self.parameters.item(items[0])
        values |= first if len(items) == 1 else {name: getattr(self.parameters, name) for name in first}
        return {**self.files[0].metadata, "parameters": values}


class Result:
    """One item."""

    def __init__(self, results: Results, index: int) -> None:
        self._results = results
        self.index = index
        """Its number among the results."""

    @property
    def value(self) -> Any:
        """The item as a Python object, of the modality's own kind."""
        return self._results._values[self.index]

    @property
    def seed(self) -> int:
        """The seed that makes this item alone."""
        return int(self.metadata["parameters"]["seed"])

    @property
    def metadata(self) -> dict[str, Any]:
        """Model, hash and every parameter: enough to make this item again."""
        return self._results._metadata((self.index,))

    def bytes(self, format: str | None = None) -> bytes:
        """The item as a file."""
        kind = self._results._generator._face.format(format) if format else self._results._kind
        return self._results._bytes((self.index,), kind)

    def save(self, path: str | Path) -> Path:
        """Write the item; the ending of ``path`` chooses the format."""
        target, kind = self._results._target(path)
        check_writable([target])
        return write_files({target: self._results._bytes((self.index,), kind)})[0]

    def __repr__(self) -> str:
        return f"Result({self._results._generator._face.name!r}, seed={self.seed})"

    def _repr_png_(self) -> Any:
        """Shown by notebooks."""
        return self.bytes() if self._results._kind.media_type == "image/png" else None


def device_of(name: str, threads: int) -> str:
    """The torch device that ``name`` stands for, checked to be there; and torch told how many threads to use."""
    try:
        torch = importlib.import_module("torch")  # by name: this module is part of the light start-up
    except ModuleNotFoundError:
        raise NotInstalled("running a model in this process", "run") from None
    if threads:
        torch.set_num_threads(threads)
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda:0" if cuda else "mps" if mps else "cpu"
    if name == "cpu" or (name == "mps" and mps):
        return name
    number = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if number and int(number[1] or 0) < cuda:
        return f"cuda:{int(number[1] or 0)}"
    there = ["auto", "cpu", *(["mps"] if mps else []), *(f"cuda:{i}" for i in range(cuda))]
    raise InvalidInput("device", name, "one of " + ", ".join(there))
