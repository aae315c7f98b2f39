"""Groups: jobs that were submitted together, and how they wait for each other."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from perrin.client import Group
from perrin.errors import Conflict, NotFound, Unreachable
from perrin.wire import GroupRecord, JobRecord, JobState
from perrin_dashboard.connection import client, modality
from perrin_dashboard.graph import depths, graph
from perrin_dashboard.jobs import job_rows
from perrin_dashboard.navigation import current_group, show_group_here
from perrin_dashboard.panel import empty
from perrin_dashboard.views import show_artifact
from perrin_dashboard.words import ago, prompt_of, tally, took

__all__ = ["page"]

PERIOD = 2.0
PAGE = 20
SHOWN, ROW = 12, 4
"""Results that are shown, and how many beside each other."""


def page() -> None:
    """Draw the page: one group where the address names one, else the list."""
    group_id = current_group()
    if group_id is None:
        st.title("Groups", anchor=False)
        st.fragment(_list, run_every=PERIOD)()
        return
    if st.button("All groups", icon=":material/arrow_back:", type="tertiary", key="groups-back"):
        show_group_here(None)
        st.rerun()
    over = st.session_state.get("_group-over") == group_id
    st.fragment(_group, run_every=None if over else PERIOD)(group_id)


def _list() -> None:
    shown = st.session_state.setdefault("groups-shown", PAGE)
    try:
        found = client().groups(limit=shown + 1)
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    if not found:
        empty(
            "No groups yet",
            "Jobs that belong together: a chain of the Create page, `perrin group submit FILE`, or the SDK.",
        )
        return
    for group in found[:shown]:
        _row(group.record)
    if len(found) > shown and shown < 200 - PAGE and st.button("Show more", key="groups-more"):
        st.session_state["groups-shown"] = shown + PAGE
        st.rerun(scope="fragment")


def _row(record: GroupRecord) -> None:
    with st.container(border=True, key=f"row-{record.id}"):
        what, how, when, button = st.columns([4.4, 3.8, 1.6, 1], vertical_alignment="center")
        count = sum(record.states.values())
        what.html(
            f'<div class="perrin-prompt">{escape(record.label or "Without a label")}</div>'
            f'<div class="perrin-quiet">{count} {"job" if count == 1 else "jobs"}</div>'
        )
        with how:
            st.html(_bar(record) + f'<div class="perrin-quiet">{escape(tally(record.states))}</div>')
        when.html(f'<span class="perrin-quiet">{escape(ago(record.created_at))}</span>')
        if button.button("Open", key=f"open-group-{record.id}", width="stretch"):
            show_group_here(record.id)
            st.rerun()


def _bar(record: GroupRecord) -> str:
    """How the jobs are divided among the states, as one bar."""
    parts = "".join(
        f'<span class="perrin-part {state.value}" style="flex-grow: {record.states[state]}"></span>'
        for state in JobState
        if record.states.get(state)
    )
    return f'<div class="perrin-bar">{parts}</div>'


def _group(group_id: str) -> None:
    try:
        group = client().group(group_id)
    except NotFound:
        st.warning("There is no group with this id.", icon=":material/search_off:")
        return
    except Unreachable:
        st.info("The connection was lost. Trying again; the jobs are not affected.", icon=":material/cloud_off:")
        return
    record = group.record
    title, button = st.columns([6, 1], vertical_alignment="center")
    title.title(record.label or "Group", anchor=False)
    if any(not job.state.terminal for job in record.jobs):
        st.session_state.pop("_group-over", None)
        _cancel(button, group)
    elif st.session_state.get("_group-over") != group_id:  # from now on it is drawn once
        st.session_state["_group-over"] = group_id
        st.rerun()
    st.html(
        f'<div class="perrin-quiet">{escape(tally(record.states))} · {escape(ago(record.created_at))} · '
        f"{escape(record.id)}</div>"
    )
    st.html(graph(record.jobs))
    _results(record.jobs)
    st.subheader("Jobs", anchor=False)
    job_rows(record.jobs, "group-shown", here=False)


def _results(jobs: Sequence[JobRecord]) -> None:
    """The first result of each of the first jobs that have one, in the order of the graph."""
    depth = depths(jobs)
    made = sorted((job for job in jobs if job.artifacts), key=lambda job: depth[job.id])[:SHOWN]
    for start in range(0, len(made), ROW):
        for job, column in zip(made[start : start + ROW], st.columns(ROW), strict=False):
            info = modality(job.modality)
            with column, st.container(key=f"tile-{job.id}"):
                show_artifact(job.artifacts[0], info.view if info else "file", prompt_of(job))
                st.html(
                    f'<div class="perrin-prompt">{escape(prompt_of(job))}</div>'
                    f'<div class="perrin-quiet">{escape(" · ".join(filter(None, (job.name, took(job)))))}</div>'
                )


def _cancel(place: st.delta_generator.DeltaGenerator, group: Group) -> None:
    if place.button("Cancel all", key="cancel-group", icon=":material/close:", width="stretch"):
        try:
            group.cancel()
        except Conflict as error:
            st.warning(error.message)
        st.rerun(scope="fragment")
