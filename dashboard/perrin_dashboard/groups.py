"""Groups: jobs that were submitted together, and how they wait for each other."""

from __future__ import annotations

from html import escape

import streamlit as st

from perrin.client import Group
from perrin.errors import Conflict, NotFound, Unreachable
from perrin.wire import GroupRecord, JobState
from perrin_dashboard.connection import client
from perrin_dashboard.graph import graph
from perrin_dashboard.jobs import job_rows
from perrin_dashboard.navigation import current_group, show_group_here
from perrin_dashboard.panel import empty
from perrin_dashboard.words import ago, tally

__all__ = ["page"]

PERIOD = 2.0
PAGE = 20


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
    st.fragment(_group, run_every=PERIOD)(group_id)


def _list() -> None:
    shown = st.session_state.setdefault("groups-shown", PAGE)
    try:
        found = client().groups(limit=shown + 1)
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    if not found:
        empty("No groups yet", "Jobs that belong together are submitted with `perrin group submit FILE`, or the SDK.")
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
        _cancel(button, group)
    st.html(
        f'<div class="perrin-quiet">{escape(tally(record.states))} · {escape(ago(record.created_at))} · '
        f"{escape(record.id)}</div>"
    )
    st.html(graph(record.jobs))
    st.subheader("Jobs", anchor=False)
    job_rows(record.jobs, "group-shown", here=False)


def _cancel(place: st.delta_generator.DeltaGenerator, group: Group) -> None:
    if place.button("Cancel all", key="cancel-group", icon=":material/close:", width="stretch"):
        try:
            group.cancel()
        except Conflict as error:
            st.warning(error.message)
        st.rerun(scope="fragment")
