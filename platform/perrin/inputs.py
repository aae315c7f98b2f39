"""Files that a request takes in: how a plugin declares them, and where they are in a request's values.

A parameter that takes a file holds its id in JSON: of an artifact that a job made, or of an upload. So a request stays
small and can be stored, and a path never comes from one. The plugin gets the bytes::

    class VideoParameters(Parameters):
        image: Annotated[str, Input("image/png", "image/jpeg")] | None = Field(None, title="Image", ...)

    class VideoRuntime:
        def start(self, parameters, inputs): ...                # inputs["image"].data
        def decode(self, clean, parameters, inputs): ...

The keys of ``inputs`` are places in the parameters: ``image``; ``frames.0`` in a list, ``controls.1.image`` in a list
of models, ``control.edge`` in a mapping. Only what was given is there. Without a platform (`perrin.load`) the value is
a path or bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from perrin.errors import InvalidInput
from perrin.media import sniff

__all__ = [
    "FORMAT",
    "Input",
    "InputFile",
    "Slot",
    "check_type",
    "declares",
    "filled",
    "is_id",
    "local_files",
    "put",
    "read_file",
    "slots",
    "takes",
]

FORMAT = "artifact"
"""What the JSON schema of an input has as its ``format``."""

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class InputFile:
    """A file that a request takes in.

    Attributes:
        media_type: its MIME type; of an upload, by its first bytes.
        data: its bytes.
        sha256: of the bytes; what a result records of its inputs.
    """

    media_type: str
    data: bytes
    sha256: str = field(default="")

    def __post_init__(self) -> None:
        if not self.sha256:
            object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())


class Input:
    """Declares, inside ``Annotated[str, Input(...)]``, that a parameter takes a file.

    Args:
        accepts: media types, such as ``image/png``, or ``image/*`` for all of a kind.
    """

    def __init__(self, *accepts: str) -> None:
        self.accepts = accepts

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_id, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "format": FORMAT, "accept": list(self.accepts)}


def _id(value: str) -> str:
    if not is_id(value):
        raise PydanticCustomError("artifact_id", "the id of one of your artifacts or uploads")
    return value


def is_id(value: object) -> bool:
    """Whether ``value`` has the form of an artifact's or an upload's id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


# --- places in a request ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """A place of a request that takes a file.

    Attributes:
        path: where, as the plugin will find it: ``image``, ``frames.0``.
        accepts: media types.
        value: what is there.
    """

    path: str
    accepts: tuple[str, ...]
    value: Any


def declares(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The parameters that take files, or hold something that does."""
    definitions = schema.get("$defs", {})

    def inside(part: Any, seen: tuple[str, ...] = ()) -> bool:
        if isinstance(part, Mapping):
            target = str(part.get("$ref", "")).rsplit("/", 1)[-1]
            if target and target not in seen and inside(definitions.get(target), (*seen, target)):
                return True
            return part.get("format") == FORMAT or any(inside(value, seen) for value in part.values())
        return isinstance(part, list) and any(inside(value, seen) for value in part)

    return tuple(name for name, part in schema.get("properties", {}).items() if inside(part))


def slots(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[Slot]:
    """The places in ``values`` that take a file and have one, by the JSON schema of the parameters."""
    return list(_walk(schema, values, schema.get("$defs", {}), ""))


def takes(schema: Mapping[str, Any], path: str, values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The media types that a place takes which somebody else is to fill; None if it takes no file."""
    try:
        found = slots(schema, put(values, path, ""))
    except InvalidInput:
        return None
    return next((slot.accepts for slot in found if slot.path == path), None)


def filled(schema: Mapping[str, Any], values: Mapping[str, Any], fill: Callable[[Slot], Any]) -> dict[str, Any]:
    """``values`` with ``fill(slot)`` in every place that has a file."""
    result = dict(values)
    for slot in slots(schema, values):
        result = put(result, slot.path, fill(slot))
    return result


def put(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``values`` with ``value`` at ``path``; a list may grow by one, a mapping by any name.

    Raises:
        InvalidInput: there is no such place.
    """
    return dict(_put(values, path.split("."), value, path))


def _put(within: Any, parts: list[str], value: Any, path: str) -> Any:
    if not parts:
        return value
    name, *rest = parts
    if isinstance(within, Mapping) and (not rest or name in within):
        return {**within, name: _put(within.get(name), rest, value, path)}
    if isinstance(within, list | tuple) and name.isdecimal() and int(name) < len(within) + (not rest):
        copy: list[Any] = [*within, None][: max(len(within), int(name) + 1)]
        copy[int(name)] = _put(copy[int(name)], rest, value, path)
        return copy
    if within is None and rest == [] and name == "0":
        return [value]
    if isinstance(within, Mapping) and len(rest) == 1:
        return {**within, name: [value] if rest == ["0"] else {rest[0]: value}}
    raise InvalidInput("parameter", path, "a place in the parameters that are given")


def _walk(part: Mapping[str, Any], value: Any, definitions: Mapping[str, Any], path: str) -> Iterator[Slot]:
    if "$ref" in part:
        part = definitions[part["$ref"].rsplit("/", 1)[-1]]
    if value is None:
        return
    if part.get("format") == FORMAT:
        yield Slot(path, tuple(part.get("accept", ())), value)
    elif any(key in part for key in ("anyOf", "oneOf", "allOf")):
        for key in ("anyOf", "oneOf", "allOf"):
            for option in part.get(key, ()):
                yield from _walk(option, value, definitions, path)
    elif isinstance(value, Mapping):
        known, others = part.get("properties", {}), part.get("additionalProperties")
        for name, inner in known.items():
            if name in value:
                yield from _walk(inner, value[name], definitions, f"{path}.{name}".lstrip("."))
        if isinstance(others, Mapping):
            for name in [name for name in value if name not in known]:
                yield from _walk(others, value[name], definitions, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list | tuple) and "items" in part:
        for number, item in enumerate(value):
            yield from _walk(part["items"], item, definitions, f"{path}.{number}")


# --- files ------------------------------------------------------------------------------------------------------------


def check_type(path: str, accepts: tuple[str, ...], media_type: str, shown: object) -> None:
    """Make sure that a place takes files of this type.

    Raises:
        InvalidInput: it does not; names the place and what it takes.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if not any(fnmatchcase(kind, wanted) for wanted in accepts):
        raise InvalidInput(path, shown, f"{' or '.join(accepts)}: this is {kind}")


def local_files(schema: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, InputFile]]:
    """A request of this process, whose files are paths or bytes: with ids in their place, and the files by place.

    An id is made of the file's hash, so that the same request has the same values again.

    Raises:
        InvalidInput: a file that is not there, is empty, or is of another type than its place takes.
    """
    files: dict[str, InputFile] = {}

    def take(slot: Slot) -> str:
        data = read_file(slot.path, slot.value)
        files[slot.path] = file = InputFile(sniff(data), data)
        check_type(slot.path, slot.accepts, file.media_type, slot.value if isinstance(slot.value, str) else "a file")
        return file.sha256[:32]

    return filled(schema, values, take), files


def read_file(field: str, value: object) -> bytes:
    """The bytes that ``value`` stands for: a path, or bytes themselves.

    Raises:
        InvalidInput: it is neither, cannot be read, or is empty.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    elif isinstance(value, str | Path):
        try:
            data = Path(value).expanduser().read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidInput(field, str(value), f"a file that can be read: {reason.lower()}") from None
    else:
        raise InvalidInput(field, value, "a path or bytes")
    if not data:
        raise InvalidInput(field, str(value) if isinstance(value, str | Path) else data, "a file with something in it")
    return data
