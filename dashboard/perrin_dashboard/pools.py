"""Pools: how much waits in each, and the switches that an operator has."""

from __future__ import annotations

from html import escape

import streamlit as st

from perrin.errors import PerrinError, Unreachable
from perrin.wire import JobState, PoolRecord
from perrin_dashboard.connection import client
from perrin_dashboard.panel import empty
from perrin_dashboard.words import ago

__all__ = ["page"]

PERIOD = 2.0

STATES = {
    "open": ("Open", "green", "Jobs are taken and run as usual."),
    "paused": ("Paused", "orange", "Jobs can be submitted, and none of them is begun. What runs goes on."),
    "draining": ("Draining", "orange", "No job can be submitted. What is there is worked off."),
}

HELD = (JobState.LEASED, JobState.RUNNING, JobState.COMMITTING)


def page() -> None:
    """Draw the page."""
    st.title("Pools", anchor=False)
    operator = client().me().operator
    st.fragment(_live, run_every=PERIOD)(operator)
    if not operator:
        st.caption("Only an operator may pause, drain and resume pools: this dashboard's API key belongs to none.")


def _live(operator: bool) -> None:
    try:
        pools = client().pools()
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    if not pools:
        empty("No pools yet", "A pool comes with the first job of a modality.")
    for pool in sorted(pools, key=lambda one: one.name):
        _card(pool, operator)


def _card(pool: PoolRecord, operator: bool) -> None:
    label, colour, means = STATES.get(pool.state, (pool.state.capitalize(), "gray", ""))
    with st.container(border=True, key=f"pool-{pool.name}"):
        about, queued, running, waiting = st.columns([4, 1.2, 1.2, 1.2], gap="medium", vertical_alignment="center")
        with about:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.subheader(pool.name, anchor=False, width="content")
                st.badge(label, color=colour)  # type: ignore[arg-type]
            st.html(f'<div class="perrin-quiet">{escape(means)}</div>')
            if pool.state != "open":
                why = f": {pool.reason}" if pool.reason else ""
                st.html(f'<div class="perrin-reason">{escape(f"{label} {ago(pool.changed_at)}{why}")}</div>')
        queued.metric("Queued", pool.states.get(JobState.QUEUED, 0))
        running.metric("Running", sum(pool.states.get(state, 0) for state in HELD))
        waiting.metric("Waiting", pool.states.get(JobState.WAITING, 0))
        if operator:
            _switches(pool)


def _switches(pool: PoolRecord) -> None:
    reason, pause, drain, resume = st.columns([4, 1.2, 1.2, 1.2], gap="medium", vertical_alignment="bottom")
    why = reason.text_input(
        "Why",
        key=f"why-{pool.name}",
        placeholder="Why, for whoever wonders",
        label_visibility="collapsed",
        max_chars=200,
        disabled=pool.state != "open",
    )
    switches = (
        (pause, "pause", "paused", ":material/pause:"),
        (drain, "drain", "draining", ":material/output:"),
        (resume, "resume", "open", ":material/play_arrow:"),
    )
    for place, action, there, icon in switches:
        key, off = f"{action}-{pool.name}", pool.state == there
        if place.button(action.capitalize(), key=key, icon=icon, width="stretch", disabled=off):
            _change(pool, action, why)


def _change(pool: PoolRecord, action: str, reason: str) -> None:
    try:
        client().change_pool(pool.name, action, reason.strip() if action != "resume" else "")
    except PerrinError as error:
        st.error(error.message, icon=":material/error:")
        return
    st.rerun(scope="fragment")
