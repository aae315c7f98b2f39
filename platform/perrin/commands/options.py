"""Command line options made from a modality's parameters.

An option takes text; its conversion only guesses the JSON type. What is allowed is checked in one place, the modality's
own parameters, so that the command line and the gateway refuse the same values with the same words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from perrin.errors import InvalidInput
from perrin.fields import Field, convert
from perrin.inputs import is_id

__all__ = ["given", "with_options"]

_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "object": "JSON"}
_PAIR = "KIND=FILE"


def with_options(function: Callable[..., None], fields: Sequence[Field], own: Mapping[str, Any]) -> Callable[..., None]:
    """``function(**values)`` with a signature that typer reads: an option for every field, after the command's own.

    Args:
        function: the command.
        fields: the modality's parameters. ``prompt``, where there is one, becomes the argument.
        own: annotations of the command's own options by name, each with None as its default.
    """
    annotations = {field.name: _annotation(field) for field in fields if field.name == "prompt"}
    annotations |= dict(own)
    annotations |= {field.name: _annotation(field) for field in fields if field.name != "prompt"}
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(n, kind, default=None, annotation=a) for n, a in annotations.items()]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = annotations
    return function


def given(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given, as JSON values; and what is to be a file and no id, as paths."""
    result: dict[str, Any] = {}
    for field in fields:
        value = values.get(field.name)
        if value is None or value == []:
            continue
        if isinstance(value, list) and field.kind == "object":
            result[field.name] = dict(_named(field, item) for item in value)
        elif isinstance(value, list):
            result[field.name] = [_value(field, item) for item in value]
        else:
            result[field.name] = _value(field, value) if isinstance(value, str) else value
    return result


def _named(field: Field, text: str) -> tuple[str, Any]:
    """``edge=lines.png``: a name, and its file."""
    name, equals, file = text.partition("=")
    if not (name and equals and file) or name not in (field.choices or (name,)):
        known = f", with the kind one of {', '.join(map(str, field.choices))}" if field.choices else ""
        raise InvalidInput(field.name, text, _PAIR + known)
    return name, _value(field, file)


def _value(field: Field, text: str) -> Any:
    return Path(text) if field.accepts and not is_id(text) else convert(field, text)


def _annotation(field: Field) -> Any:
    if field.name == "prompt":
        return Annotated[str | None, typer.Argument(help=_help(field), metavar="PROMPT", show_default=False)]
    name = field.name.replace("_", "-")
    panel = "Parameters"
    if field.kind == "boolean":
        return Annotated[bool | None, typer.Option(f"--{name}/--no-{name}", help=_help(field), rich_help_panel=panel)]
    metavar = "|".join(map(str, field.choices)) if 0 < len(field.choices) <= 6 else _METAVARS.get(field.items, "TEXT")
    named = field.kind == "object" and field.accepts
    metavar = _PAIR if named else "FILE|ID" if field.accepts else metavar
    option = typer.Option(f"--{name}", help=_help(field), metavar=metavar, rich_help_panel=panel)
    return Annotated[list[str] | None, option] if field.kind == "array" or named else Annotated[str | None, option]


def _help(field: Field) -> str:
    """What it does, its range, its default."""
    parts = [field.help.rstrip(".")]
    if field.range:
        parts.append(field.range[:1].upper() + field.range[1:])
    elif len(field.choices) > 6 or (field.kind == "object" and field.choices):
        parts.append("One of " + ", ".join(map(str, field.choices)))
    if field.accepts:
        parts.append("Takes " + ", ".join(field.accepts))
    if field.kind == "array":
        parts.append("Give it again for more")
    if field.default not in (None, "", [], {}):
        parts.append(f"Default: {field.default}")
    return (". ".join(part for part in parts if part) + ".").replace("[", r"\[")
