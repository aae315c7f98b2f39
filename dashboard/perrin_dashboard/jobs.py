"""Jobs: everything that was asked for, and one of them in full."""

from __future__ import annotations

from html import escape

import streamlit as st

from perrin.client import Job
from perrin.errors import PerrinError, Unreachable
from perrin.wire import EventRecord, JobRecord, JobState
from perrin_dashboard.connection import artifact_bytes, client, modalities, modality, worker_name
from perrin_dashboard.navigation import current_job, show_job_here
from perrin_dashboard.panel import empty, empty_with_button, job_panel, state_badge
from perrin_dashboard.words import BADGES, ago, fraction, happening, parameter_list, prompt_of, stage, took

__all__ = ["page"]

PAGE = 20
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
    chosen = state.selectbox("State", list(STATES), key="jobs-state", label_visibility="collapsed")
    only = kind.selectbox(
        "Modality", kinds, index=None, key="jobs-kind", placeholder="Any modality", label_visibility="collapsed"
    )
    st.fragment(_rows, run_every=2.0)(words or "", STATES[chosen], only)


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
    for job in found[:shown]:
        _row(job.record)
    if len(found) > shown and shown < 200 - PAGE and st.button("Show more", key="jobs-more"):
        st.session_state["jobs-shown"] = shown + PAGE
        st.rerun(scope="fragment")


def _row(record: JobRecord) -> None:
    with st.container(border=True, key=f"row-{record.id}"):
        thumb, what, state, when, button = st.columns([0.75, 5, 2.4, 1.6, 1], vertical_alignment="center")
        with thumb, st.container(key=f"thumb-{record.id}"):
            _thumbnail(record)
        note = " · ".join(part for part in (record.model, record.label) if part)
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
        if button.button("Open", key=f"open-{record.id}", width="stretch"):
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
            "Job": record.id,
        }
        st.html(parameter_list(about, {}))
        with st.expander("What happened", icon=":material/timeline:"):
            st.html(_timeline(client().job(job_id)))


def _timeline(job: Job) -> str:
    """States and stages as they came, one line each."""
    events: list[EventRecord] = []
    try:
        for event in job.events(timeout=0.4):
            events.append(event)
    except (TimeoutError, PerrinError):
        pass  # what has happened so far
    lines: dict[str, str] = {}
    for event in events:
        what = BADGES[event.state][0] if event.progress is None else stage(event.progress)
        key = event.progress.stage if event.progress is not None else str(event.number)
        note = f" {event.message}" if event.message else ""
        lines[key] = f"<dt>{event.at:%H:%M:%S}</dt><dd>{escape(what + note)}</dd>"
    return f'<dl class="perrin-parameters">{"".join(lines.values())}</dl>' if lines else "Nothing yet."
