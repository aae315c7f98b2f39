"""Jobs: everything that was asked for, and one of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from perrin.errors import PerrinError, Unreachable
from perrin.wire import JobRecord, JobState
from perrin_dashboard.connection import artifact_bytes, client, modalities, modality, worker_name
from perrin_dashboard.history import attempts
from perrin_dashboard.navigation import current_job, go, show_job_here
from perrin_dashboard.panel import empty, empty_with_button, job_panel, retry_button, state_badge
from perrin_dashboard.words import (
    BADGES,
    ago,
    energy,
    fraction,
    happening,
    lasted,
    parameter_list,
    prompt_of,
    took,
)

__all__ = ["job_rows", "page"]

PAGE = 20
FEW = 8
"""Relations of a job that are listed."""
DEAD = "Dead letters"
STATES = {"Any state": None} | {label: state for state, (label, _, _) in BADGES.items()}


def page() -> None:
    """Draw the page: one job where the address names one, else the list."""
    job_id = current_job()
    if job_id is None:
        _list()
    else:
        _details(job_id)


def _list() -> None:
    st.title("Jobs", anchor=False)
    kinds = [info.name for info in modalities()]
    search, state, kind = st.columns([3, 1, 1])
    words = search.text_input(
        "Search",
        key="jobs-search",
        placeholder="Search prompts and labels",
        icon=":material/search:",
        label_visibility="collapsed",
    )
    chosen = state.selectbox("State", [*STATES, DEAD], key="jobs-state", label_visibility="collapsed")
    only = kind.selectbox(
        "Modality", kinds, index=None, key="jobs-kind", placeholder="Any modality", label_visibility="collapsed"
    )
    if chosen == DEAD:
        st.caption("Jobs that failed or were set aside, and that nobody has tried again. Search does not look here.")
        st.fragment(_dead, run_every=2.0)()
        return
    st.fragment(_rows, run_every=2.0)(words or "", STATES[chosen], only)


def _dead() -> None:
    shown = st.session_state.setdefault("dead-shown", PAGE)
    try:
        found = client().jobs(dead=True, limit=min(200, shown + 1))
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    if not found:
        empty("No dead letters", "Nothing has come to nothing without being tried again.")
        return
    job_rows([job.record for job in found], "dead-shown", retry=True)


def _rows(search: str, state: JobState | None, kind: str | None) -> None:
    shown = st.session_state.setdefault("jobs-shown", PAGE)
    try:
        found = client().jobs(search=search, state=state, modality=kind, limit=shown + 1)
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    if not found:
        if search or state or kind:
            empty("Nothing found", "No job fits. Try other words or another state.")
            return
        empty_with_button("No jobs yet", "Everything you ask for is listed here, with its progress and its result.")
        return
    job_rows([job.record for job in found], "jobs-shown")


def job_rows(records: Sequence[JobRecord], counter: str, *, retry: bool = False, here: bool = True) -> None:
    """A row for each job, as many as the session's ``counter`` says, and a button for more.

    Args:
        records: the jobs; one more than are shown tells that there are more.
        counter: name of the counter.
        retry: each row has a button that tries the job again.
        here: this is the page that shows a job when it is opened.
    """
    shown = st.session_state.setdefault(counter, PAGE)
    for record in records[:shown]:
        _row(record, retry, here)
    if len(records) > shown and shown <= 500 - PAGE and st.button("Show more", key=f"{counter}-more"):
        st.session_state[counter] = shown + PAGE
        st.rerun(scope="fragment")


def _row(record: JobRecord, retry: bool, here: bool) -> None:
    with st.container(border=True, key=f"row-{record.id}"):
        widths = [0.75, 4.6, 1.7, 1.6, 1.2, 1] if retry else [0.75, 5, 2.4, 1.6, 1]
        thumb, what, state, when, *again, button = st.columns(widths, vertical_alignment="center")
        with thumb, st.container(key=f"thumb-{record.id}"):
            _thumbnail(record)
        why = f"{record.error.kind}: {record.error.message}" if record.error and record.state.terminal else ""
        note = " · ".join(part for part in (record.name, record.model, record.label, why) if part)
        what.html(
            f'<div class="perrin-prompt">{escape(prompt_of(record))}</div>'
            f'<div class="perrin-quiet">{escape(note)}</div>'
        )
        with state:
            if record.state in (JobState.RUNNING, JobState.COMMITTING, JobState.LEASED):
                st.progress(fraction(record), text=happening(record))
            else:
                state_badge(record)
        when.html(f'<span class="perrin-quiet">{escape(ago(record.created_at))}<br>{escape(took(record))}</span>')
        for place in again:
            with place:
                retry_button(record, key=f"retry-{record.id}")
        if button.button("Open", key=f"open-{record.id}", width="stretch"):
            if not here:
                go("jobs", record.id)
            show_job_here(record.id)
            st.rerun()


def _thumbnail(record: JobRecord) -> None:
    info = modality(record.modality)
    picture = next((item for item in record.artifacts if item.media_type.startswith("image/")), None)
    if picture is not None and info is not None and info.view == "image":
        try:
            st.image(artifact_bytes(picture.sha256, picture), width=56, alt=prompt_of(record))
            return
        except PerrinError:
            pass
    st.html('<div class="perrin-thumb"></div>')


def _details(job_id: str) -> None:
    if st.button("All jobs", icon=":material/arrow_back:", type="tertiary", key="jobs-back"):
        show_job_here(None)
        st.rerun()
    left, right = st.columns([6, 5], gap="large")
    with left:
        record = job_panel(job_id, titled=False)
    if record is None:
        return
    with right:
        st.subheader(prompt_of(record), anchor=False)
        with st.container(horizontal=True):
            state_badge(record)
            st.caption(f"{ago(record.created_at)}{', took ' + took(record) if took(record) else ''}")
        properties = (info.parameters if (info := modality(record.modality)) else {}).get("properties", {})
        titles = {name: part.get("title", name) for name, part in properties.items()}
        st.html(parameter_list({k: v for k, v in record.parameters.items() if k != "prompt"}, titles))
        st.space("small")
        about = {
            "Worker": f"{worker_name(record.worker)}, {record.worker}" if record.worker else None,
            "Format": record.format,
            "Label": record.label,
            "Priority": record.priority or None,
            "Attempts": record.attempts if record.attempts > 1 else None,
            "Device": lasted(record.gpu_seconds) if record.gpu_seconds else None,
            "Energy": energy(record.joules),
            "Job": record.id,
        }
        st.html(parameter_list(about, {}))
        _relations(record)
    st.subheader("History", anchor=False)
    attempts(record.id, live=not record.state.terminal)


def _relations(record: JobRecord) -> None:
    """What it waits for, what waits for it, what it is another try of; and the group that it belongs to."""
    feeds = {edge.job: f"its {edge.parameter}" if edge.parameter else "" for edge in record.parents}
    _jobs("Waits for" if not record.state.terminal else "Parents", feeds)
    _jobs("Children", dict.fromkeys(record.children, ""))
    _jobs("Another try of", {record.retry_of: ""} if record.retry_of else {})
    if record.group and st.button("Its group", key="to-group", icon=":material/account_tree:", type="tertiary"):
        go("groups", group=record.group)


def _jobs(title: str, ids: Mapping[str, str]) -> None:
    """Other jobs, by name, with their states and a way to each."""
    if not ids:
        return
    st.html(f'<div class="perrin-quiet">{escape(title)}</div>')
    for job_id, note in list(ids.items())[:FEW]:
        try:
            other = client().job(job_id).record
        except PerrinError:
            st.html(f'<div class="perrin-quiet">{escape(job_id)} is no longer kept</div>')
            continue
        with st.container(key=f"relation-{job_id}", horizontal=True, vertical_alignment="center"):
            state_badge(other)
            name = " · ".join(part for part in (other.name, prompt_of(other), note) if part)
            if st.button(name, key=f"to-{job_id}", type="tertiary"):
                show_job_here(job_id)
                st.rerun()
    if len(ids) > FEW:
        st.html(f'<div class="perrin-quiet">and {len(ids) - FEW} more</div>')
