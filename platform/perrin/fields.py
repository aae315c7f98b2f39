"""A request's JSON schema, read as a flat list of fields.

The command line makes an option of each field, the dashboard a widget. Both know nothing else of a modality, so a new
one appears in both by declaring its parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perrin.inputs import FORMAT

__all__ = ["Field", "convert", "read_fields"]

KINDS = ("string", "integer", "number", "boolean", "array", "object")


@dataclass(frozen=True)
class Field:
    """One parameter of a request.

    Attributes:
        name: the parameter's name.
        title: what a person reads beside it.
        help: what it does, one or two sentences.
        kind: string, integer, number, boolean, array or object.
        items: the kind of an array's elements; ``kind`` itself otherwise.
        choices: the values allowed, where they are listed.
        low, high: inclusive bounds, where there are any.
        longest: most characters of a string.
        default: what is used when it is left out; None: the model's own default.
        required: it cannot be left out.
        accepts: the media types of the files that it takes; none if it takes no file. An object takes one for each
            of its names, ``choices`` where they are listed.
        group: what a form puts it under, closed at first; nothing where it is always in sight. A plugin says it with
            ``json_schema_extra={"group": ...}``.
    """

    name: str
    title: str
    help: str
    kind: str
    items: str
    choices: tuple[Any, ...]
    low: float | None
    high: float | None
    longest: int | None
    default: Any
    required: bool
    accepts: tuple[str, ...] = ()
    group: str = ""

    @property
    def range(self) -> str:
        """The bounds in words: ``1 to 1000``, ``at least 0``, or nothing."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}" if self.high < 2**31 else f"at least {self.low:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""


def read_fields(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a JSON schema of an object, in its order."""
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return tuple(
        _field(name, part, definitions, name in required) for name, part in schema.get("properties", {}).items()
    )


def _field(name: str, part: Mapping[str, Any], definitions: Mapping[str, Any], required: bool) -> Field:
    core = _resolve(part, definitions)
    kind = _kind(core)
    inner = _resolve(core.get("items", {}), definitions) if kind == "array" else core
    named = core.get("additionalProperties") if kind == "object" else None
    files = _resolve(named if isinstance(named, Mapping) else inner, definitions)
    if files is not inner and files.get("format") == FORMAT:
        inner = {**files, **core.get("propertyNames", {})}
    choices = inner.get("enum", (inner["const"],) if "const" in inner else part.get("choices", ()))
    step = 1 if kind == "integer" else 0
    low, high = core.get("minimum"), core.get("maximum")
    if low is None and "exclusiveMinimum" in core:
        low = core["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in core:
        high = core["exclusiveMaximum"] - step
    return Field(
        name=name,
        title=part.get("title") or name.replace("_", " ").capitalize(),
        help=part.get("description", core.get("description", "")),
        kind=kind,
        items=_kind(inner),
        choices=tuple(choices),
        low=low,
        high=high,
        longest=core.get("maxLength"),
        default=part.get("default"),
        required=required,
        accepts=tuple(files.get("accept", ())) if files.get("format") == FORMAT else (),
        group=part.get("group", ""),
    )


def _resolve(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that says something: references followed, and the null of an optional field left aside."""
    while True:
        if "$ref" in part:
            part = definitions[part["$ref"].rsplit("/", 1)[-1]]
            continue
        options = [p for p in (*part.get("anyOf", ()), *part.get("allOf", ())) if p.get("type") != "null"]
        if not options:
            return part
        part = options[0]


def _kind(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind in KINDS:
        return str(kind)
    values = part.get("enum", (part.get("const", ""),))
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(isinstance(value, int) for value in values):
        return "integer"
    return "string"


def convert(field: Field, text: str) -> Any:
    """``text`` as a value of the field's kind; as it stands where it is none, so that the check names what it got."""
    try:
        if field.items == "integer":
            return int(text)
        if field.items == "number":
            return float(text)
        if field.items == "object":
            return json.loads(text)
    except ValueError:
        pass
    return text
