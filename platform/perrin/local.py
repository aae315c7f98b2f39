"""Generation in this process: no services, no queue, the same engine that workers run.

::

    import perrin

    generate = perrin.load("image")
    apples = generate("a red apple", seed=7, count=4)
    apples.save("apple.png")        # apple-0.png ... apple-3.png
    apples[2].save("third.png")     # the item of seed 9; alone it is generate("a red apple", seed=9)
"""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from perrin import plugins
from perrin.engine import Engine, Failed, File, Finished, Request
from perrin.engine import Progress as ProgressEvent
from perrin.errors import InvalidInput, NotInstalled
from perrin.files import check_writable, numbered, write_files
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
    """One model on one device; call it to make things. The weights are read at the first call and kept."""

    def __init__(self, face: Modality, card: ModelCard, device: str) -> None:
        plugins.runtime(face)  # says now, not after the first call, that something is not installed
        self._face = face
        self._card = card
        self._engine = Engine(device)

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._card

    @property
    def device(self) -> str:
        """Where the model runs."""
        return self._engine.device

    def __repr__(self) -> str:
        return f"Generator({self._face.name!r}, model={self._card.name!r}, device={self.device!r})"

    def __call__(
        self,
        prompt: str | None = None,
        *,
        format: str | None = None,
        progress: Progress | None = None,
        **parameters: Any,
    ) -> Results:
        """Make what is asked for.

        Args:
            prompt: fills the parameter ``prompt`` where the modality has one.
            format: file format of ``Results.files``; the modality's first one if left out.
            progress: called with (done, total, stage).
            parameters: the modality's own; what is left out is the model's default.

        Raises:
            InvalidInput: names the parameter and its range.
        """
        if prompt is not None:
            if "prompt" not in self._face.parameters.model_fields:
                raise InvalidInput("prompt", prompt, f"none: {self._face.name} takes no prompt")
            parameters["prompt"] = prompt
        kind = self._face.format(format) if format else self._face.formats[0]
        asked = validate(self._face, {"model": self._card.name, **parameters}).resolved(self._card)
        request = Request(uuid.uuid4().hex, self._face.name, asked.model_dump(), kind.name)
        self._engine.admit(request)
        try:
            done = self._run(progress)
        finally:
            self._engine.cancel(request.id)
        return Results(self, asked, kind, done)

    def _run(self, progress: Progress | None) -> Finished:
        while True:
            for event in self._engine.tick():
                match event:
                    case ProgressEvent() if progress is not None:
                        progress(event.done, event.total, event.stage)
                    case Failed():
                        raise event.error
                    case Finished():
                        return event

    def _export(self, values: Sequence[Any], kind: Format, metadata: Mapping[str, Any]) -> bytes:
        return self._engine.model(self._face, self._card).export(values, kind, metadata)


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
        values = self.parameters.model_dump(mode="json")
        if len(items) == 1:
            values |= {"seed": values["seed"] + items[0], "count": 1}
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
