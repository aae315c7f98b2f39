"""A job's attempts: a bar for each, in the colours of its stages, and how each of them ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

import plotly.graph_objects as go
import streamlit as st

from perrin.errors import PerrinError
from perrin.wire import AttemptRecord, JobState
from perrin_dashboard.connection import client, worker_name
from perrin_dashboard.words import BADGES, energy, lasted, stage_title

__all__ = ["attempts", "plot"]

COLOURS = {
    "load": "#94a3b8",
    "compile": "#64748b",
    "encode": "#0ea5e9",
    "step": "#14a396",
    "decode": "#a78bfa",
    "write": "#f59e0b",
}
BAR, FRAME = 34, 84
MOST = 12
"""Attempts drawn; the last ones."""


def attempts(job_id: str, live: bool) -> None:
    """Draw the history of a job, again and again while it is ``live``."""
    st.fragment(_draw, run_every=2.0 if live else None)(job_id)


def _draw(job_id: str) -> None:
    try:
        found = client().job(job_id).history()
    except PerrinError as error:
        st.caption(error.message)
        return
    if not found:
        st.html('<div class="perrin-quiet">No worker has had it yet.</div>')
        return
    if any(attempt.stages for attempt in found):
        st.plotly_chart(plot(found[-MOST:]), key=f"history-{job_id}", config={"displayModeBar": False})
    st.html("".join(_line(attempt) for attempt in reversed(found)))


def plot(found: Sequence[AttemptRecord], now: datetime | None = None) -> go.Figure:
    """Attempts from top to bottom, stages from left to right, in seconds since the first of them was claimed."""
    now = now or datetime.now(UTC)
    begin = found[0].claimed_at
    figure = go.Figure()
    named = dict.fromkeys(stage.name for attempt in found for stage in attempt.stages)
    for name in named:
        parts = [(attempt, stage) for attempt in found for stage in attempt.stages if stage.name == name]
        ends = [stage.ended_at or attempt.ended_at or now for attempt, stage in parts]
        seconds = [(end - stage.began_at).total_seconds() for (_, stage), end in zip(parts, ends, strict=True)]
        figure.add_bar(
            y=[_name(attempt) for attempt, _ in parts],
            base=[(stage.began_at - begin).total_seconds() for _, stage in parts],
            x=seconds,
            orientation="h",
            name=stage_title(name),
            marker={"color": COLOURS.get(name, "#be123c"), "line": {"width": 0}},
            customdata=[
                f"{stage_title(name)} {lasted(taken)}" + (f", {stage.done} of {stage.total}" if stage.total > 1 else "")
                for (_, stage), taken in zip(parts, seconds, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    ended = [attempt for attempt in found if attempt.ended_at and attempt.state is not JobState.SUCCEEDED]
    figure.add_scatter(
        y=[_name(attempt) for attempt in ended],
        x=[(attempt.ended_at - begin).total_seconds() for attempt in ended if attempt.ended_at],
        mode="markers",
        marker={"symbol": "x", "size": 9, "color": "#be123c"},
        customdata=[_wrap(attempt.message or "ended") for attempt in ended],
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(
        barmode="overlay",
        height=FRAME + BAR * len(found),
        margin={"l": 0, "r": 8, "t": 30, "b": 30},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        bargap=0.4,
    )
    figure.update_xaxes(title=None, ticksuffix=" s", rangemode="tozero", zeroline=False)
    figure.update_yaxes(
        categoryorder="array", categoryarray=[_name(attempt) for attempt in reversed(found)], showgrid=False, title=None
    )
    return figure


def _name(attempt: AttemptRecord) -> str:
    return f"Attempt {attempt.epoch} "


def _line(attempt: AttemptRecord) -> str:
    became = BADGES[attempt.state][0] if attempt.state else "Goes on"
    if attempt.state in (JobState.QUEUED, JobState.WAITING):
        became = "Taken back" if attempt.state is JobState.QUEUED else "To be tried again"
    parts = [
        worker_name(attempt.worker) if attempt.worker else "",
        lasted((attempt.ended_at - attempt.claimed_at).total_seconds()) if attempt.ended_at else "",
        f"{lasted(attempt.gpu_seconds)} of the device" if attempt.gpu_seconds else "",
        energy(attempt.joules),
    ]
    note = f"<div>{escape(attempt.message)}</div>" if attempt.message else ""
    return (
        f'<div class="perrin-attempt"><strong>Attempt {attempt.epoch}</strong> {escape(became)}'
        f'<div class="perrin-quiet">{escape(" · ".join(part for part in parts if part))}{note}</div></div>'
    )


def _wrap(text: str, width: int = 60) -> str:
    """Lines for a hover label."""
    words, lines = escape(text).split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "<br>".join(lines)
