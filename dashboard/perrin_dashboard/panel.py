"""One job, live: what it is doing while it runs, what came of it afterwards.

While the job runs, only this part of the page is drawn again, every half second; the rest keeps what is being typed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from html import escape

import streamlit as st

from perrin.errors import Conflict, NotFound, PerrinError, Unreachable
from perrin.wire import ArtifactRecord, JobRecord, JobState
from perrin_dashboard.chain import next_steps, put_in
from perrin_dashboard.connection import client, modalities, modality, worker_name
from perrin_dashboard.form import fill
from perrin_dashboard.navigation import go, show_job_here
from perrin_dashboard.views import show_artifact
from perrin_dashboard.words import BADGES, advice, facts, fraction, happening, prompt_of

__all__ = ["empty", "empty_with_button", "job_panel", "retry_button", "state_badge"]

PERIOD = 1.0


def empty(title: str, text: str, *, tall: bool = False) -> None:
    """A place where something will be."""
    kind = "perrin-empty tall" if tall else "perrin-empty"
    st.html(f'<div class="{kind}"><strong>{escape(title)}</strong><span>{escape(text)}</span></div>')


def empty_with_button(title: str, text: str) -> None:
    """The same, with a way to the page where it all begins."""
    empty(title, text)
    known = modalities()
    what = known[0].title.lower() if known else "result"
    with st.container(horizontal=True, horizontal_alignment="center"):
        if st.button(f"Make your first {what}", type="primary", key="make-first"):
            go("create")


def state_badge(record: JobRecord) -> None:
    """The job's state, small."""
    label, colour, icon = BADGES[record.state]
    st.badge(label, color=colour, icon=icon)  # type: ignore[arg-type]


def retry_button(record: JobRecord, key: str) -> None:
    """A button that makes a new job of the same parameters, and shows it."""
    if st.button("Retry", key=key, icon=":material/replay:", width="stretch"):
        try:
            job = client().retry(record.id)
        except PerrinError as error:
            st.error(error.message, icon=":material/error:")
            return
        show_job_here(job.id)
        st.rerun()


def job_panel(job_id: str, *, titled: bool = True) -> JobRecord | None:
    """Draw a job and, while it runs, keep drawing it; its record, or None where there is no such job."""
    try:
        record = client().job(job_id).record
    except NotFound:
        st.warning("There is no job with this id.", icon=":material/search_off:")
        return None
    if record.state.terminal:
        _ended(record, titled)
    else:
        st.fragment(_running, run_every=PERIOD)(record.id, record.state)
    return record


def _running(job_id: str, drawn: JobState) -> None:
    """The part that is drawn again and again; a new state draws the whole page again."""
    try:
        job = client().job(job_id)
        picture = job.preview() if job.record.state is JobState.RUNNING else None
    except Unreachable:
        st.info("The connection was lost. Trying again; the job is not affected.", icon=":material/cloud_off:")
        return
    record = job.record
    if record.state is not drawn:
        st.rerun()
    with st.container(key="canvas"):
        if picture is None:
            empty(happening(record), prompt_of(record), tall=True)
        else:
            st.image(picture, width="stretch", alt=f"Preview of {prompt_of(record)}")
    st.progress(fraction(record), text=happening(record))
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.html(f'<span class="perrin-quiet">{escape(facts(record))}</span>')
    if right.button(
        "Cancel", key="cancel-job", icon=":material/close:", width="stretch", disabled=record.cancel_requested
    ):
        with contextlib.suppress(Conflict):  # it has just ended
            job.cancel()
        st.rerun()


def _ended(record: JobRecord, titled: bool) -> None:
    info = modality(record.modality)
    with st.container(key="canvas"):
        if record.state is JobState.SUCCEEDED:
            _results(record, record.artifacts, info.view if info else "file")
        elif record.state is JobState.CANCELLED:
            empty("Cancelled", "Somebody stopped this job before it was done.", tall=True)
        else:
            empty("This did not work out", prompt_of(record), tall=True)
            reason = record.error.message if record.error else "The job gave no reason."
            kind = record.error.kind if record.error else ""
            st.error(f"{reason[:1].upper()}{reason[1:].rstrip('.')}. {advice(kind)}", icon=":material/error:")
    if titled:
        maker = worker_name(record.worker) if record.worker else None
        st.html(
            f'<div class="perrin-prompt">{escape(prompt_of(record))}</div>'
            f'<div class="perrin-quiet">{escape(facts(record, maker))}</div>'
        )
    _what_next(record)


def _results(record: JobRecord, artifacts: Sequence[ArtifactRecord], view: str) -> None:
    columns = st.columns(2) if len(artifacts) > 1 else [st.container()]
    for number, artifact in enumerate(artifacts):
        with columns[number % len(columns)]:
            data = show_artifact(artifact, view, prompt_of(record))
            if data is not None:
                download, use = st.columns(2) if (able := next_steps([artifact.media_type])) else (st.container(), None)
                label = "Download" if len(artifacts) == 1 else f"Download {artifact.name}"
                download.download_button(
                    label,
                    data,
                    file_name=f"{record.id}-{artifact.name}",
                    mime=artifact.media_type,
                    key=f"download-{artifact.id}",
                    icon=":material/download:",
                    on_click="ignore",
                    width="stretch",
                )
                if use:
                    _use_in(use, record, artifact, able)


def _use_in(
    at: st.delta_generator.DeltaGenerator, record: JobRecord, artifact: ArtifactRecord, able: Mapping[str, str]
) -> None:
    """A menu of what can be made of a result; the form of the chosen modality has it in place."""
    chosen = at.menu_button(
        "Use in…",
        list(able),
        key=f"use-{artifact.id}",
        icon=":material/arrow_forward:",
        format_func=lambda name: able[name],
        width="stretch",
    )
    target = modality(chosen) if chosen else None
    if target is not None:
        fill(target.name, put_in(target, [artifact.media_type], artifact.id))
        go("create", record.id)


def _what_next(record: JobRecord) -> None:
    if record.state in (JobState.FAILED, JobState.QUARANTINED, JobState.CANCELLED):
        retry_button(record, key="retry-job")
    again, use = st.columns(2)
    if again.button("Again with another seed", key="again", icon=":material/casino:", width="stretch"):
        values = {name: value for name, value in record.parameters.items() if name != "seed" and value is not None}
        try:
            job = client().submit(record.modality, format=record.format, label=record.label, **values)
        except PerrinError as error:
            st.error(error.message, icon=":material/error:")
            return
        show_job_here(job.id)
        st.rerun()
    if use.button(
        "Use these parameters",
        key="use",
        icon=":material/edit:",
        width="stretch",
        on_click=fill,
        args=(record.modality, record.parameters),
    ):
        go("create", record.id)
