"""Create: say what you want, watch it come, take it with you."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import streamlit as st

from perrin.errors import InvalidInput, NotFound, PerrinError
from perrin.wire import ModalityInfo
from perrin_dashboard import chain
from perrin_dashboard.connection import client, modalities, modality, models
from perrin_dashboard.form import draw_form, fill
from perrin_dashboard.navigation import current_job, go, show_job_here
from perrin_dashboard.panel import empty, job_panel

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    known = modalities()
    if not known:
        empty("Nothing can be made yet", "No modality is installed on the platform.", tall=True)
        return
    job_id = current_job()
    if not st.session_state.get("_begun") and job_id is not None and "_fill" not in st.session_state:
        _take_up(job_id)
    st.session_state["_begun"] = True
    left, right = st.columns([5, 6], gap="large")
    with left:
        st.title("What would you like to make?", anchor=False)
        chain.draw_steps()
        info = _choose(known)
        values = draw_form(info, models(), chain.sources())
        _buttons(info, values)
    with right:
        job_id = current_job()
        if job_id is None or job_panel(job_id) is None:
            empty("Your result appears here", "Write a prompt or pick an example, then press Generate.", tall=True)
            if not chain.steps():
                chain.draw_ready()


def _take_up(job_id: str) -> None:
    """After a refresh: what the job in the address was asked for is in the form again."""
    with contextlib.suppress(NotFound):
        record = client().job(job_id).record
        fill(record.modality, record.parameters, seed=False)


def _choose(known: Sequence[ModalityInfo]) -> ModalityInfo:
    by_name = {info.name: info for info in known}
    if len(known) == 1:
        return known[0]
    wanted = st.session_state.pop("_wanted", None)
    if wanted is not None or st.session_state.get("modality") not in by_name:
        last = wanted or st.session_state.get("_modality")  # what was chosen before another page was opened
        st.session_state["modality"] = last if last in by_name else known[0].name
    chosen = st.segmented_control(
        "What to make",
        list(by_name),
        key="modality",
        format_func=lambda name: by_name[name].title,
        label_visibility="collapsed",
        required=True,
        on_change=_changed,
    )
    st.session_state["_modality"] = chosen
    return by_name[chosen or known[0].name]


def _changed() -> None:
    """Another modality was chosen: in a chain, its form takes what the last step makes."""
    if chain.steps():
        chain.take_up(st.session_state["modality"])


def _buttons(info: ModalityInfo, values: dict[str, Any]) -> None:
    go_on = chain.next_steps(info.media_types)
    generate, then = st.columns([3, 1]) if go_on else (st.container(), None)
    word = "Generate chain" if chain.steps() else "Generate"
    pressed = generate.button(word, type="primary", icon=":material/auto_awesome:", width="stretch", key="generate")
    after = then and then.menu_button(
        "Then…",
        list(go_on),
        key="then",
        format_func=lambda name: go_on[name],
        help="Make something of the result: this becomes a step, and what follows takes it in.",
        width="stretch",
    )
    if not (pressed or after):
        return
    if "prompt" in info.parameters.get("required", ()) and not values.get("prompt"):
        st.warning("Write a prompt first: a few words on what you want to see.", icon=":material/edit:")
        return
    try:
        if after:
            chain.add(info, values, after)
        elif chain.steps():
            whole = [*chain.steps(), chain.Step(info.name, values)]
            group = client().submit_group(chain.jobs(whole), label=" → ".join(step.title for step in whole)[:200])
        else:
            job = client().submit(info.name, **values)
    except InvalidInput as error:
        _refused(error, info)
    except PerrinError as error:
        st.error(error.message, icon=":material/error:")
    else:
        if after:
            st.rerun()
        if chain.steps():
            chain.clear()
            go("groups", group=group.id)
        show_job_here(job.id)


def _refused(error: InvalidInput, info: ModalityInfo) -> None:
    """What is wrong, under the title that the form has for it; of a chain, in which step."""
    field, where = error.field, ""
    if found := re.match(r"jobs\.(\d+)\.(?:parameters\.)?(.+)", field):
        where, field = f"Step {int(found[1]) + 1}, ", found[2]
        number = int(found[1])
        names = [step.modality for step in chain.steps()]
        info = modality(names[number]) or info if number < len(names) else info
    title = info.parameters.get("properties", {}).get(field, {}).get("title", field)
    text = error.message.removeprefix(f"{error.field}: ")
    st.error(f"**{where}{title}**: {text}", icon=":material/error:")
