"""A chain in the making: steps that are jobs to be, each of which may take in what earlier ones make.

A step is written in the first of its formats that all who take it in can read. Which those are, the platform says of
its modalities; none is known here by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from perrin.chains import Chain, chains, fitting, place
from perrin.fields import read_fields
from perrin.wire import ModalityInfo
from perrin_dashboard.connection import client, modalities
from perrin_dashboard.form import FromStep, Source, fill

__all__ = [
    "Step",
    "add",
    "clear",
    "draw_ready",
    "draw_steps",
    "jobs",
    "next_steps",
    "put_in",
    "sources",
    "steps",
    "take_up",
]

TITLE = 60


@dataclass(frozen=True)
class Step:
    """A job to be: its modality and parameters, with `FromStep` where a file comes from an earlier step."""

    modality: str
    values: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What a person calls it: its prompt, else what was said of it."""
        plain = {name: value for name, value in self.values.items() if isinstance(value, str | int | float)}
        told = ", ".join(f"{name} {value}" for name, value in plain.items() if name not in ("seed", "count"))
        said = str(self.values.get("prompt") or told or self.modality)
        return said if len(said) <= TITLE else said[: TITLE - 1] + "…"


def steps() -> list[Step]:
    """The steps so far; what is in the form comes after them."""
    held: list[Step] = st.session_state.setdefault("_chain", [])
    return held


def clear() -> None:
    """No steps."""
    st.session_state["_chain"] = []


def add(info: ModalityInfo, values: Mapping[str, Any], after: str) -> None:
    """What is in the form becomes a step; the form becomes that of ``after``, which takes it in."""
    kept = _with_files(values, lambda file: client().upload(file).id if isinstance(file, bytes) else file)
    st.session_state["_chain"] = [*steps(), Step(info.name, kept)]
    take_up(after)


def take_up(modality: str) -> None:
    """The form of ``modality``, with what the last step makes where it fits."""
    made = sources()
    last = max(made, default=0)
    fill(modality, put_in(_known()[modality], made[last].media_types, FromStep(last)) if last else {})


def put_in(target: ModalityInfo, media_types: Sequence[str], value: Any) -> dict[str, Any]:
    """Parameters of ``target`` with ``value`` where it takes the first of ``media_types`` that it does."""
    field = place(media_types, target)
    if field is None:
        return {}
    if field.kind == "object":
        return {field.name: {str(next(iter(field.choices), "file")): value}}
    return {field.name: [value] if field.kind == "array" else value}


def next_steps(media_types: Sequence[str]) -> dict[str, str]:
    """Modalities that take in any of ``media_types``: their names with their titles."""
    return {info.name: info.title for info in modalities() if place(media_types, info) is not None}


def sources() -> dict[int, Source]:
    """The steps by number, with the media types that each can still be written as."""
    found = {}
    for number, step in enumerate(steps(), 1):
        fit = _formats(number, steps())
        info = _known()[step.modality]
        found[number] = Source(step.title, tuple(info.media_types[n] for n in fit))
    return found


def jobs(whole: Sequence[Step]) -> list[dict[str, Any]]:
    """The chain as the jobs of a group."""
    names = [f"{number} {step.modality}" for number, step in enumerate(whole, 1)]
    found = []
    for number, step in enumerate(whole, 1):
        parents = [{"job": names[given - 1], "parameter": path} for path, given in _edges(step.values)]
        fed = any(given == number for later in whole for _, given in _edges(later.values))
        found.append(
            {
                "modality": step.modality,
                "name": names[number - 1],
                "parameters": _with_files(step.values, lambda file: None if isinstance(file, FromStep) else file),
                "format": _known()[step.modality].formats[_formats(number, whole)[0]] if fed else None,
                "parents": parents,
            }
        )
    return found


def draw_steps() -> None:
    """The steps so far as a list; each can be removed, the last be put into the form again."""
    held = steps()
    for number, step in enumerate(held, 1):
        with st.container(border=True, key=f"step-{number}"):
            what, edit, remove = st.columns([8, 1, 1], vertical_alignment="center")
            taken = sorted({given for _, given in _edges(step.values)})
            takes = f" · from step {', '.join(map(str, taken))}" if taken else ""
            title = _known()[step.modality].title
            what.html(
                f'<div class="perrin-prompt">{number} · {escape(step.title)}</div>'
                f'<div class="perrin-quiet">{escape(title + takes)}</div>'
            )
            if number == len(held):
                edit.button(
                    "",
                    key="step-edit",
                    icon=":material/edit:",
                    help="Back into the form",
                    type="tertiary",
                    on_click=_back,
                )
            remove.button(
                "",
                key=f"step-remove-{number}",
                icon=":material/close:",
                help="Remove this step",
                type="tertiary",
                on_click=_remove,
                args=(number,),
            )


def draw_ready() -> None:
    """Chains that ship and that this platform can make; the chosen one's steps are put in place."""
    found = chains([info.name for info in modalities()])
    if not found:
        return
    st.html('<div class="perrin-quiet">Or take a chain, in which one thing becomes another:</div>')
    for name, chain in found.items():
        with st.container(border=True, key=f"row-{name}"):
            what, button = st.columns([5, 1], vertical_alignment="center")
            what.html(
                f'<div class="perrin-prompt">{escape(chain.label)}</div>'
                f'<div class="perrin-quiet">{escape(chain.about)}</div>'
            )
            button.button("Take", key=f"chain-{name}", width="stretch", on_click=_take, args=(chain,))


def _take(chain: Chain) -> None:
    """The steps of a chain that ships, the last of them in the form."""
    numbers = {job.get("name"): number for number, job in enumerate(chain.jobs, 1)}
    whole = []
    for job in chain.jobs:
        values = dict(job.get("parameters", {}))
        for parent in job.get("parents", []):
            info = _known()[job["modality"]]
            field = next(field for field in read_fields(info.parameters) if field.name == parent["parameter"])
            step = FromStep(numbers[parent["job"]])
            values[field.name] = [step] if field.kind == "array" else step
        whole.append(Step(job["modality"], values))
    st.session_state["_chain"] = whole[:-1]
    fill(whole[-1].modality, whole[-1].values)


def _back() -> None:
    last = steps()[-1]
    st.session_state["_chain"] = steps()[:-1]
    fill(last.modality, last.values)


def _remove(number: int) -> None:
    """Without this step; those after it move up, and what came from it is empty."""

    def moved(file: Any) -> Any:
        if not isinstance(file, FromStep):
            return file
        return None if file.number == number else FromStep(file.number - (file.number > number))

    left = [step for n, step in enumerate(steps(), 1) if n != number]
    st.session_state["_chain"] = [Step(step.modality, _with_files(step.values, moved)) for step in left]
    for key, value in st.session_state.items():
        if str(key).startswith("form/") and str(key).endswith("/step") and value is not None:
            held = moved(FromStep(value))
            st.session_state[key] = held and held.number


def _known() -> dict[str, ModalityInfo]:
    return {info.name: info for info in modalities()}


def _formats(number: int, whole: Sequence[Step]) -> list[int]:
    """Numbers of the formats of a step that all can read that take it in; all of them where nobody does."""
    media_types = _known()[whole[number - 1].modality].media_types
    fit = list(range(len(media_types)))
    for step in whole:
        fields = {field.name: field for field in read_fields(_known()[step.modality].parameters)}
        for path, given in _edges(step.values):
            if given == number:
                able = fitting(media_types, fields[path.partition(".")[0]].accepts)
                fit = [n for n in fit if n in able]
    return fit or [0]


def _edges(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Places in the parameters that an earlier step fills, with its number."""
    for name, value in values.items():
        inner = {name: value}
        if isinstance(value, Mapping):
            inner = {f"{name}.{key}": item for key, item in value.items()}
        elif isinstance(value, list):
            inner = {f"{name}.{n}": item for n, item in enumerate(value)}
        yield from ((path, item.number) for path, item in inner.items() if isinstance(item, FromStep))


def _with_files(values: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The parameters with ``change`` of each value, also inside lists and mappings; None leaves one out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        held: Any
        if isinstance(value, Mapping):
            held = {key: new for key, item in value.items() if (new := change(item)) is not None}
        elif isinstance(value, list):
            held = [new for item in value if (new := change(item)) is not None]
        else:
            held = change(value)
        if held not in (None, [], {}):
            found[name] = held
    return found
