"""Create: say what you want, watch it come, take it with you."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import streamlit as st

from perrin.errors import InvalidInput, NotFound, PerrinError
from perrin.wire import ModalityInfo
from perrin_dashboard.connection import client, modalities, models
from perrin_dashboard.form import draw_form, fill
from perrin_dashboard.navigation import current_job, show_job_here
from perrin_dashboard.panel import empty, job_panel

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    known = modalities()
    if not known:
        empty("Nothing can be made yet", "No modality is installed on the platform.", tall=True)
        return
    job_id = current_job()
    if not st.session_state.get("_begun") and job_id is not None:
        _take_up(job_id)
    st.session_state["_begun"] = True
    left, right = st.columns([5, 6], gap="large")
    with left:
        st.title("What would you like to make?", anchor=False)
        info = _choose(known)
        values = draw_form(info, models())
        if st.button("Generate", type="primary", icon=":material/auto_awesome:", width="stretch", key="generate"):
            _submit(info, values)
    with right:
        job_id = current_job()
        if job_id is None or job_panel(job_id) is None:
            empty("Your result appears here", "Write a prompt or pick an example, then press Generate.", tall=True)


def _take_up(job_id: str) -> None:
    """After a refresh: what the job in the address was asked for is in the form again."""
    with contextlib.suppress(NotFound):
        record = client().job(job_id).record
        fill(record.modality, record.parameters, seed=False)


def _choose(known: Sequence[ModalityInfo]) -> ModalityInfo:
    by_name = {info.name: info for info in known}
    if len(known) == 1:
        return known[0]
    if st.session_state.get("modality") not in by_name:
        last = st.session_state.get("_modality")  # what was chosen before another page was opened
        st.session_state["modality"] = last if last in by_name else known[0].name
    chosen = st.segmented_control(
        "What to make",
        list(by_name),
        key="modality",
        format_func=lambda name: by_name[name].title,
        label_visibility="collapsed",
        required=True,
    )
    st.session_state["_modality"] = chosen
    return by_name[chosen or known[0].name]


def _submit(info: ModalityInfo, values: dict[str, Any]) -> None:
    if "prompt" in info.parameters.get("required", ()) and not values.get("prompt"):
        st.warning("Write a prompt first: a few words on what you want to see.", icon=":material/edit:")
        return
    try:
        job = client().submit(info.name, **values)
    except InvalidInput as error:
        title = info.parameters.get("properties", {}).get(error.field, {}).get("title", error.field)
        text = error.message.removeprefix(f"{error.field}: ")
        st.error(f"**{title}**: {text}", icon=":material/error:")
    except PerrinError as error:
        st.error(error.message, icon=":material/error:")
    else:
        show_job_here(job.id)
