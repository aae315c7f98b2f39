"""Times, states, stages and parameters in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from perrin.wire import JobRecord, JobState, ProgressRecord

__all__ = [
    "BADGES",
    "advice",
    "ago",
    "energy",
    "facts",
    "fraction",
    "happening",
    "lasted",
    "parameter_list",
    "prompt_of",
    "stage",
    "stage_title",
    "tally",
    "took",
]

BADGES: Mapping[JobState, tuple[str, str, str]] = {
    JobState.WAITING: ("Waiting", "gray", ":material/hourglass_empty:"),
    JobState.QUEUED: ("Queued", "gray", ":material/schedule:"),
    JobState.LEASED: ("Starting", "blue", ":material/play_arrow:"),
    JobState.RUNNING: ("Running", "blue", ":material/autorenew:"),
    JobState.COMMITTING: ("Saving", "blue", ":material/save:"),
    JobState.SUCCEEDED: ("Done", "green", ":material/check:"),
    JobState.FAILED: ("Failed", "red", ":material/error:"),
    JobState.CANCELLED: ("Cancelled", "orange", ":material/block:"),
    JobState.QUARANTINED: ("Set aside", "red", ":material/report:"),
}
"""How a state is shown: label, colour, icon."""

# Where each stage begins and ends on the bar; most of the time goes into the steps.
_SPANS = {
    "load": (0.0, 0.08),
    "encode": (0.08, 0.12),
    "step": (0.12, 0.92),
    "decode": (0.92, 0.97),
    "write": (0.97, 1.0),
}
_STAGES = {
    "load": "Loading the model",
    "compile": "Preparing the model",
    "encode": "Reading the prompt",
    "decode": "Decoding",
    "write": "Writing the result",
}

_TITLES = {
    "load": "Load",
    "compile": "Prepare",
    "encode": "Encode",
    "step": "Steps",
    "decode": "Decode",
    "write": "Write",
}

_ADVICE = {
    "degenerate": "Another seed usually helps.",
    "storage": "The disk of the platform may be full. Make room, then try again.",
    "crash": "Something in it ends the worker's process: change the parameters, or look into the worker's log.",
    "model": "The model's files may be incomplete: `perrin models verify` tells.",
}


def advice(kind: str) -> str:
    """What to do about a failure of this kind."""
    return _ADVICE.get(kind, "Change the parameters, or try again.")


def prompt_of(record: JobRecord) -> str:
    """What a person calls the job: its prompt, else its label, else what it makes."""
    return str(record.parameters.get("prompt") or record.label or record.modality)


def happening(record: JobRecord) -> str:
    """What the job is doing now."""
    if record.cancel_requested and not record.state.terminal:
        return "Stopping"
    if record.state in (JobState.WAITING, JobState.QUEUED):
        before = record.position or 0
        return "Next in line" if before == 0 else f"In the queue, {before} {'job' if before == 1 else 'jobs'} before it"
    if record.state is JobState.COMMITTING:
        return "Saving the result"
    if record.state is JobState.RUNNING and record.progress is not None:
        return stage(record.progress)
    return BADGES[record.state][0]


def stage(progress: ProgressRecord) -> str:
    """What a worker is doing, and how far it is."""
    if progress.stage == "step":
        return f"Step {progress.done} of {progress.total}"
    words = _STAGES.get(progress.stage, progress.stage.capitalize())
    return f"{words}, {progress.done} of {progress.total}" if progress.total > 1 else words


def stage_title(name: str) -> str:
    """A stage in one word, for a plot."""
    return _TITLES.get(name, name.capitalize())


def tally(states: Mapping[JobState, int]) -> str:
    """``3 running, 2 done``: how many jobs are in which state, in the order of a job's life."""
    return ", ".join(f"{states[state]} {BADGES[state][0].lower()}" for state in BADGES if states.get(state))


def energy(joules: float | None) -> str:
    """``12.3 J``, ``1.23 kJ``; nothing where no device told."""
    if joules is None:
        return ""
    return f"{joules / 1000:.2f} kJ" if joules >= 1000 else f"{joules:.1f} J"


def fraction(record: JobRecord) -> float:
    """How far the job is, from 0 to 1."""
    if record.state in (JobState.SUCCEEDED, JobState.COMMITTING):
        return 1.0
    if record.progress is None:
        return 0.0
    low, high = _SPANS.get(record.progress.stage, (0.0, 1.0))
    return low + (high - low) * min(1.0, record.progress.done / max(1, record.progress.total))


def ago(moment: datetime) -> str:
    """``5 minutes ago``."""
    seconds = max(0, int((datetime.now(UTC) - _utc(moment)).total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now" if seconds < 10 else f"{seconds} seconds ago"


def took(record: JobRecord) -> str:
    """How long the job ran, or nothing while it has not ended."""
    if record.started_at is None or record.finished_at is None:
        return ""
    return lasted((_utc(record.finished_at) - _utc(record.started_at)).total_seconds())


def lasted(seconds: float) -> str:
    """``3.2 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def facts(record: JobRecord, worker: str | None = None) -> str:
    """One line: model, seed, time, and who made it."""
    parts = [record.model, f"seed {record.parameters['seed']}" if record.parameters.get("seed") is not None else ""]
    parts += [took(record), f"made by {worker}" if worker and record.artifacts else ""]
    return " · ".join(part for part in parts if part)


def parameter_list(values: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Parameters as an HTML list, those that were left empty aside."""
    rows = "".join(
        f"<dt>{escape(titles.get(name, name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in values.items()
        if value not in (None, "", [], {})
    )
    return f'<dl class="perrin-parameters">{rows}</dl>'


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
