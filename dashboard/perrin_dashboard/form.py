"""A form from a JSON schema: one widget for each field, whatever the modality.

The prompt comes first and large, then what the modality itself asks for; the settings that every modality shares and
few people touch wait under Advanced, and what a modality calls a group under its name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from perrin.chains import fitting
from perrin.fields import Field, convert, read_fields
from perrin.wire import ModalityInfo, ModelInfo

__all__ = ["FromStep", "Source", "draw_form", "fill"]

ADVANCED = frozenset({"model", "steps", "sampler", "guidance", "strict"})
"""Fields of every modality that have a good default."""

LARGE = 2**31
"""A bound beyond this is of no interest to a person."""

_TURN = "_files"
"""Counts how often the form was filled: a widget that holds files cannot be emptied, only replaced."""

LONG = 100
"""A text that may be this long gets a line of its own."""


@dataclass(frozen=True)
class FromStep:
    """In place of a file: what a step of the chain will make, by its number from 1."""

    number: int


@dataclass(frozen=True)
class Source:
    """A step of the chain that a file can come from: what it is called, and what it can still be written as."""

    title: str
    media_types: tuple[str, ...]


def fill(modality: str, parameters: Mapping[str, Any], *, seed: bool = True) -> None:
    """Put parameters into the form; it shows them when it is drawn next. Without ``seed``, a new one will be drawn."""
    st.session_state["_wanted"] = modality
    st.session_state["_fill"] = {k: v for k, v in parameters.items() if seed or k != "seed"}


def draw_form(
    info: ModalityInfo, models: Sequence[ModelInfo], sources: Mapping[int, Source] | None = None
) -> dict[str, Any]:
    """Draw the form; the values that were given, `FromStep` where a file is to come from one of the ``sources``."""
    st.session_state["_sources"] = sources or {}
    fields = {field.name: field for field in read_fields(info.parameters)}
    _put(info.name, fields, st.session_state.pop("_fill", None))
    models = [model for model in models if model.modality == info.name and not model.base]
    chosen = st.session_state.get(_key(info.name, "model")) or info.default_model
    defaults = next((model.defaults for model in models if model.name == chosen), {})
    values: dict[str, Any] = {}
    if "prompt" in fields:
        values["prompt"] = _prompt(info, fields["prompt"])
    shown = [field for name, field in fields.items() if name != "prompt" and name not in ADVANCED]
    for group in dict.fromkeys(field.group for field in sorted(shown, key=lambda field: bool(field.group))):
        together = [field for field in shown if field.group == group]
        said = [st.session_state.get(_key(info.name, field.name)) or field.default for field in together]
        begun = any(value != field.default and value != "" for value, field in zip(said, together, strict=True))
        begun = begun or any(_step_of(key) for field in together for key in _file_keys(info.name, field))
        with st.expander(group, expanded=begun) if group else contextlib.nullcontext():
            wide = [field for field in together if _is_line(field)]
            for field in wide:
                values[field.name] = _widget(info.name, field, defaults)
            values |= _grid(info.name, [field for field in together if field not in wide], defaults)
    with st.expander("Advanced", icon=":material/tune:"):
        if "model" in fields:
            values["model"] = _model(info, fields["model"], models)
        rest = [fields[name] for name in fields if name in ADVANCED and name != "model"]
        values |= _grid(info.name, rest, defaults)
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def _grid(modality: str, fields: Sequence[Field], defaults: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for start in range(0, len(fields), 2):
        for field, column in zip(fields[start : start + 2], st.columns(2), strict=False):
            with column:
                values[field.name] = _widget(modality, field, defaults)
    return values


def _key(modality: str, field: str) -> str:
    return f"form/{modality}/{field}"


def _put(modality: str, fields: Mapping[str, Field], values: Mapping[str, Any] | None) -> None:
    """Write values where the widgets will read them; fields that are not named go back to their default."""
    if values is None:
        return
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1  # what was uploaded for others is let go
    for name, field in fields.items():
        value = values.get(name)
        if field.accepts:
            _put_files(modality, field, value)
            continue
        value = field.default if value is None else value
        if value is None:
            pass
        elif field.kind == "number":
            value = float(value)
        elif field.kind == "object":
            value = json.dumps(value)
        elif field.kind == "array" and not field.choices:
            value = ", ".join(map(str, value))
        if value is None and _is_text(field) and not field.choices:
            value = ""
        st.session_state[_key(modality, name)] = value


def _file_keys(modality: str, field: Field) -> list[str]:
    """The keys of a field's file widgets: one for each name of an object, else one, or none."""
    if not field.accepts:
        return []
    named = [f"{field.name}.{choice}" for choice in field.choices] if field.kind == "object" else [field.name]
    return [_key(modality, name) for name in named]


def _put_files(modality: str, field: Field, value: Any) -> None:
    for key in _file_keys(modality, field):
        held = (value or {}).get(key.rpartition(".")[2]) if field.kind == "object" else value
        several = held if isinstance(held, list) else [held]
        steps = [one.number for one in several if isinstance(one, FromStep)]
        st.session_state[f"{key}/step"] = next(iter(steps), None)
        st.session_state[key] = ", ".join(one for one in several if isinstance(one, str))


def _step_of(key: str) -> int | None:
    """The step that the file of this key comes from; one that is there no more is forgotten."""
    if st.session_state.get(f"{key}/step") not in st.session_state["_sources"]:
        st.session_state[f"{key}/step"] = None
    number: int | None = st.session_state[f"{key}/step"]
    return number


def _prompt(info: ModalityInfo, field: Field) -> str:
    with st.container(key="prompt"):
        text = st.text_area(
            field.title,
            key=_key(info.name, "prompt"),
            placeholder=field.help,
            max_chars=field.longest,
            height=104,
            persist_state="session",
            label_visibility="collapsed",
        )
    examples = {str(example["prompt"]): example for example in info.examples if "prompt" in example}
    if examples:
        st.pills(
            "Examples",
            list(examples),
            key="examples",
            label_visibility="collapsed",
            wrap=True,
            on_change=lambda: _take_example(info.name, examples),
        )
    return (text or "").strip()


def _take_example(modality: str, examples: Mapping[str, Mapping[str, Any]]) -> None:
    chosen = st.session_state.get("examples")
    if chosen is not None:
        st.session_state["examples"] = None
        for name, value in examples[chosen].items():
            st.session_state[_key(modality, name)] = value


def _model(info: ModalityInfo, field: Field, models: Sequence[ModelInfo]) -> str | None:
    titles = {model.name: model.title for model in models if model.name in (field.choices or (model.name,))}
    return st.selectbox(
        field.title,
        list(titles),
        index=None,
        key=_key(info.name, "model"),
        placeholder=info.default_model,
        format_func=lambda name: f"{name}: {titles[name]}" if name in titles else name,
        help=field.help,
        persist_state="session",
    )


def _is_line(field: Field) -> bool:
    return _is_text(field) and not field.choices and not field.accepts and (field.longest or LONG) >= LONG


def _is_text(field: Field) -> bool:
    return field.kind in {"string", "object"} or (field.kind == "array" and not field.choices)


def _widget(modality: str, field: Field, defaults: Mapping[str, Any]) -> Any:
    """The widget that fits a field, and what it holds."""
    key = _key(modality, field.name)
    default = defaults.get(field.name, field.default)
    unsaid = "" if _is_line(field) else "Default"
    shown = "Random" if field.name == "seed" else unsaid if default is None else str(default)
    common: dict[str, Any] = {
        "label": field.title,
        "key": key,
        "help": ". ".join(part for part in (field.help.rstrip("."), field.range) if part) or None,
        "persist_state": "session",
    }
    if field.accepts and field.kind == "object":
        found = {name: _files(field, _named(common, str(name))) for name in field.choices}
        return {name: file for name, file in found.items() if file is not None}
    if field.accepts:
        return _files(field, common)
    if field.choices and field.kind == "array":
        return st.multiselect(options=list(field.choices), default=field.default or [], **common)
    if field.choices:
        index = field.choices.index(field.default) if field.default in field.choices else None
        return st.selectbox(options=list(field.choices), index=index, placeholder=shown, **common)
    if field.kind == "boolean":
        return st.toggle(value=bool(field.default), **common)
    if field.kind in {"integer", "number"}:
        return _number(field, shown, common)
    text = st.text_input(
        value=field.default if isinstance(field.default, str) else "",
        max_chars=field.longest,
        placeholder=shown or None,
        **common,
    )
    if field.kind == "array" and text:
        return [convert(field, part.strip()) for part in text.split(",") if part.strip()]
    return convert(field, text) if text else None


def _named(common: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same for the file called ``name`` of a field that takes several."""
    return {**common, "label": f"{common['label']}: {name}", "key": f"{common['key']}.{name}"}


def _files(field: Field, common: Mapping[str, Any]) -> Any:
    """Files from the person's machine, as bytes; or the ids of artifacts and uploads, where that is what they have."""
    several = field.kind == "array"
    sources: Mapping[int, Source] = st.session_state["_sources"]
    fit = [number for number, one in sources.items() if fitting(one.media_types, field.accepts)]
    if _step_of(common["key"]) not in fit:
        st.session_state[f"{common['key']}/step"] = None
    if fit:
        number = st.selectbox(
            **{**common, "key": f"{common['key']}/step"},
            options=fit,
            index=None,
            format_func=lambda number: f"From step {number}: {sources[number].title}",
            placeholder="What a step before makes",
        )
        if number is not None:
            return [FromStep(number)] if several else FromStep(number)
    given = st.file_uploader(
        common["label"],
        accept_multiple_files=several,
        key=f"{common['key']}/file/{st.session_state.get(_TURN, 0)}",
        help=None if fit else common["help"],
        label_visibility="collapsed" if fit else "visible",
    )
    text = st.text_input(
        **{**common, "help": None},
        placeholder="or the ids of results" if several else "or the id of a result",
        label_visibility="collapsed",
    )
    held = given if isinstance(given, list) else [] if given is None else [given]
    found: list[bytes | str] = [file.getvalue() for file in held]
    found = found or [part.strip() for part in (text or "").split(",") if part.strip()]
    return found if several else next(iter(found), None)


def _number(field: Field, shown: str, common: dict[str, Any]) -> int | float | None:
    kind = int if field.kind == "integer" else float
    bounds: dict[str, Any] = {
        "min_value": None if field.low is None else kind(field.low),
        "max_value": None if field.high is None or field.high >= LARGE else kind(field.high),
        "value": None if field.default is None else kind(field.default),
        "step": kind(1) if field.kind == "integer" else 0.5,
    }
    held: int | float | None = st.number_input(placeholder=shown or None, **bounds, **common)
    return held
