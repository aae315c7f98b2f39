"""Workers: who is there, what each is doing, how busy its machine is."""

from __future__ import annotations

from collections import deque
from html import escape

import streamlit as st

from perrin.errors import PerrinError, Unreachable
from perrin.wire import WorkerRecord
from perrin_dashboard.connection import client
from perrin_dashboard.navigation import go
from perrin_dashboard.panel import empty
from perrin_dashboard.words import ago, fraction, happening, prompt_of

__all__ = ["page"]

PERIOD = 2.0
KEPT = 150
"""Measurements kept for the plots: five minutes."""

STATES = {"starting": "blue", "idle": "green", "busy": "blue", "draining": "orange", "lost": "red"}


@st.cache_resource(show_spinner=False)
def _history() -> dict[str, deque[float]]:
    """What was measured since the dashboard started, for every viewer, by worker and quantity."""
    return {}


def page() -> None:
    """Draw the page."""
    st.title("Workers", anchor=False)
    st.fragment(_live, run_every=PERIOD)()


def _live() -> None:
    try:
        workers, health = client().workers(), client().health()
    except Unreachable:
        st.info("The connection was lost. Trying again.", icon=":material/cloud_off:")
        return
    alive = [worker for worker in workers if worker.state != "lost"]
    for column, (label, value) in zip(
        st.columns(4),
        (
            ("Workers", len(alive)),
            ("Running jobs", sum(len(worker.jobs) for worker in alive)),
            ("Waiting jobs", health.queued),
            ("Finished jobs", sum(worker.finished_jobs for worker in workers)),
        ),
        strict=True,
    ):
        column.metric(label, value, border=True)
    if not workers:
        empty("No workers", "Jobs wait until one starts: run `perrin worker` on any machine that reaches the store.")
    for worker in sorted(workers, key=lambda one: (one.state == "lost", one.id)):
        _card(worker)


def _card(worker: WorkerRecord) -> None:
    with st.container(border=True, key=f"worker-{worker.id}"):
        about, memory, load = st.columns([3, 2, 2], gap="medium")
        with about:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.subheader(worker.host, anchor=False, width="content")
                st.badge(worker.state.capitalize(), color=STATES.get(worker.state, "gray"))  # type: ignore[arg-type]
            models = ", ".join(worker.models) or "none yet"
            st.html(
                f'<dl class="perrin-parameters"><dt>Device</dt><dd>{escape(worker.device)}</dd>'
                f"<dt>Models in memory</dt><dd>{escape(models)}</dd>"
                f"<dt>Finished jobs</dt><dd>{worker.finished_jobs}</dd>"
                f"<dt>Started</dt><dd>{escape(ago(worker.started_at))}</dd>"
                f"<dt>Last heard</dt><dd>{escape(ago(worker.seen_at))}</dd>"
                f"<dt>Id</dt><dd>{escape(worker.id)}</dd></dl>"
            )
        with memory:
            _plot(worker.id, "Memory", worker.memory_mb, "MiB", 1024.0)
        with load:
            if worker.gpu_percent is not None:
                _plot(worker.id, "GPU", worker.gpu_percent, "%", 100.0)
            else:
                _plot(worker.id, "CPU", worker.cpu_percent, "%", 100.0)
        for job_id in worker.jobs:
            _job(job_id)


def _plot(worker: str, label: str, value: float | None, unit: str, top: float) -> None:
    """The last minutes of one quantity, from zero to at least ``top``."""
    if value is None:
        return
    values = _history().setdefault(f"{worker}/{label}", deque(maxlen=KEPT))
    values.append(value)
    st.metric(label, f"{value:,.0f} {unit}")
    rows = [{"at": number, "value": item} for number, item in enumerate([values[0], *values])]
    scale = {"domain": [0, max(top, *values)]}
    st.vega_lite_chart(
        rows,
        {
            "mark": {"type": "area", "line": True, "opacity": 0.25, "interpolate": "monotone"},
            "encoding": {
                "x": {"field": "at", "type": "quantitative", "axis": None, "scale": {"nice": False}},
                "y": {"field": "value", "type": "quantitative", "axis": None, "scale": scale},
            },
            "height": 70,
        },
        key=f"plot-{worker}-{label}",
    )


def _job(job_id: str) -> None:
    try:
        record = client().job(job_id).record
    except PerrinError:
        return  # it has just ended, or is somebody else's
    what, button = st.columns([6, 1], vertical_alignment="center")
    what.progress(fraction(record), text=f"{prompt_of(record)}: {happening(record)}")
    if button.button("Open", key=f"worker-job-{job_id}", width="stretch"):
        go("jobs", job_id)
