"""Gallery: everything that was made, newest first."""

from __future__ import annotations

from html import escape

import streamlit as st

from perrin.wire import ArtifactRecord, JobRecord, JobState
from perrin_dashboard.connection import client, modalities
from perrin_dashboard.navigation import go
from perrin_dashboard.panel import empty, empty_with_button
from perrin_dashboard.views import show_artifact
from perrin_dashboard.words import prompt_of

__all__ = ["page"]

COLUMNS = 5
PAGE = 40


def page() -> None:
    """Draw the page."""
    st.title("Gallery", anchor=False)
    words = st.text_input(
        "Search",
        key="gallery-search",
        placeholder="Search prompts and labels",
        icon=":material/search:",
        label_visibility="collapsed",
    )
    jobs = client().jobs(
        state=JobState.SUCCEEDED, search=words or None, limit=st.session_state.get("gallery-shown", PAGE)
    )
    results = [(job.record, artifact) for job in jobs for artifact in job.record.artifacts]
    if not results:
        if words:
            empty("Nothing found", "No result has these words in its prompt or label.")
        else:
            empty_with_button("The gallery is empty", "Every result is kept here, with all that makes it again.")
        return
    views = {info.name: info.view for info in modalities()}
    for start in range(0, len(results), COLUMNS):
        for (record, artifact), column in zip(results[start : start + COLUMNS], st.columns(COLUMNS), strict=False):
            with column:
                _tile(record, artifact, views.get(record.modality, "file"))
    if len(jobs) == st.session_state.get("gallery-shown", PAGE) < 200 and st.button("Show more", key="gallery-more"):
        st.session_state["gallery-shown"] = min(200, len(jobs) + PAGE)
        st.rerun()


def _tile(record: JobRecord, artifact: ArtifactRecord, view: str) -> None:
    with st.container(key=f"tile-{artifact.id}", gap="xsmall"):
        show_artifact(artifact, view, prompt_of(record))
        st.html(f'<div class="perrin-prompt">{escape(prompt_of(record))}</div>')
        seed = artifact.metadata.get("parameters", {}).get("seed", record.parameters.get("seed"))
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.caption(f"seed {seed}" if seed is not None else record.model)
            if st.button("Open", key=f"see-{artifact.id}", type="tertiary"):
                go("jobs", record.id)
