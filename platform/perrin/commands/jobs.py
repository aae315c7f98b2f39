"""``perrin jobs``, ``job``, ``cancel``, ``retry`` and ``workers``: what the platform is doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from perrin.wire import AttemptRecord, JobRecord, WorkerRecord

__all__ = ["ago", "cancel", "job", "jobs", "plain", "print_json", "print_table", "retry", "workers"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="ID", show_default=False)]

STYLES = {
    "succeeded": "green",
    "failed": "red",
    "quarantined": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "committing": "cyan",
}


def jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.", metavar="STATE")] = None,
    modality: Annotated[str | None, typer.Option(help="Only jobs of this modality.", metavar="NAME")] = None,
    search: Annotated[str | None, typer.Option(help="Only jobs with these words in prompt or label.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most this many.")] = 20,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that came to nothing and were not retried.")] = False,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from rich.table import Table

    from perrin.client import Client
    from perrin.errors import InvalidInput
    from perrin.wire import JobState

    if state is not None and state not in set(JobState):
        raise InvalidInput("state", state, "one of " + ", ".join(JobState))
    with Client() as client:
        listed = client.jobs(state=state, modality=modality, search=search, limit=limit, dead=dead)
        found = [job.record for job in listed]
    if as_json:
        return print_json([record.model_dump(mode="json") for record in found])
    if not found:
        print("no such jobs" if dead else "no jobs; make one with `perrin submit`", file=sys.stderr)
        return None
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "state", "what", "prompt", "age", "took"):
        table.add_column(name, no_wrap=name == "id", overflow="ellipsis")
    for record in found:
        table.add_row(
            record.id,
            _state(record),
            record.modality,
            plain(str(record.parameters.get("prompt", record.label))[:60]),
            ago(record.created_at),
            _took(record),
        )
    return print_table(table)


def job(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Show its attempts: owners, stages, errors.")] = False,
    as_json: Json = False,
) -> None:
    """Show one job; with --watch, follow it to its end and return its outcome."""
    from perrin.client import Client

    with Client() as client:
        found = client.job(job_id)
        if watch:
            found.wait(progress=True)
        attempts = found.history() if history else []
    if history and as_json:
        return print_json([attempt.model_dump(mode="json") for attempt in attempts])
    if history:
        return print_table(_history(attempts))
    if as_json:
        return print_json(found.record.model_dump(mode="json"))
    return print_table(_details(found.record))


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.", metavar="ID...", show_default=False)],
) -> None:
    """Stop jobs, waiting or running."""
    from perrin.client import Client

    with Client() as client:
        for job_id in job_ids:
            record = client.cancel(job_id).record
            print(f"{record.id} {record.state if record.state.terminal else 'is being cancelled'}")


def retry(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.", metavar="ID...", show_default=False)],
) -> None:
    """Try jobs that came to nothing once more, as new jobs. Prints their ids."""
    from perrin.client import Client

    with Client() as client:
        for job_id in job_ids:
            print(client.retry(job_id).id)


def workers(as_json: Json = False) -> None:
    """List the workers and what they are doing."""
    from rich.table import Table

    from perrin.client import Client

    with Client() as client:
        found = client.workers()
    if as_json:
        return print_json([record.model_dump(mode="json") for record in found])
    if not found:
        print("no workers; start one with `perrin worker`", file=sys.stderr)
        return None
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "host", "device", "state", "jobs", "models", "done", "memory", "cpu", "gpu", "seen"):
        table.add_column(name)
    for record in found:
        table.add_row(*_worker_row(record))
    return print_table(table)


def _history(attempts: list[AttemptRecord]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("attempt", "worker", "claimed", "took", "energy", "stages", "became", "why"):
        table.add_column(name, overflow="fold")
    for attempt in attempts:
        stages = [f"{stage.name} {_seconds(stage.began_at, stage.ended_at)}".strip() for stage in attempt.stages]
        table.add_row(
            str(attempt.epoch),
            attempt.worker or "",
            f"{attempt.claimed_at:%Y-%m-%d %H:%M:%S} UTC",
            _seconds(attempt.claimed_at, attempt.ended_at),
            _joules(attempt.joules),
            ", ".join(stages),
            str(attempt.state or "goes on"),
            plain(attempt.message),
        )
    return table


def _joules(joules: float | None) -> str:
    return "" if joules is None else f"{joules / 1000:.2f} kJ" if joules >= 1000 else f"{joules:.1f} J"


def _seconds(began: datetime, ended: datetime | None) -> str:
    return "" if ended is None else f"{(ended - began).total_seconds():.1f} s"


def _worker_row(record: WorkerRecord) -> tuple[str, ...]:
    return (
        record.id,
        record.host,
        record.device,
        f"[red]{record.state}[/]" if record.state == "lost" else record.state,
        str(len(record.jobs)),
        ", ".join(record.models) or "-",
        str(record.finished_jobs),
        "-" if record.memory_mb is None else f"{record.memory_mb:.0f} MiB",
        "-" if record.cpu_percent is None else f"{record.cpu_percent:.0f} %",
        "-" if record.gpu_percent is None else f"{record.gpu_percent:.0f} %",
        ago(record.seen_at),
    )


def _details(record: JobRecord) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows: dict[str, str] = {
        "job": record.id,
        "state": _state(record),
        "modality": record.modality,
        "model": record.model,
        "label": plain(record.label),
        "created": f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "took": _took(record),
        "worker": record.worker or "",
        "attempts": str(record.attempts),
        "group": record.group or "",
        "waits for": ", ".join(parent.job for parent in record.parents),
        "retry of": record.retry_of or "",
        "not before": f"{record.run_after:%Y-%m-%d %H:%M:%S} UTC" if record.run_after else "",
        "deadline": f"{record.deadline:%Y-%m-%d %H:%M:%S} UTC" if record.deadline else "",
        "device": f"{record.gpu_seconds:.1f} s" if record.gpu_seconds else "",
        "energy": _joules(record.joules),
        "error": plain(record.error.message) if record.error else "",
    }
    rows |= {f"  {name}": plain(str(value)) for name, value in record.parameters.items() if value is not None}
    rows |= {"result": "\n".join(f"{a.name} ({a.size} bytes)" for a in record.artifacts)}
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def _state(record: JobRecord) -> str:
    text = str(record.state)
    if record.progress is not None and not record.state.terminal:
        text += f" {record.progress.stage} {record.progress.done}/{record.progress.total}"
    elif record.position is not None and not record.state.terminal:
        text += f", {record.position} before it"
    style = STYLES.get(record.state)
    return f"[{style}]{text}[/]" if style else text


def _took(record: JobRecord) -> str:
    if record.started_at is None or record.finished_at is None:
        return ""
    return f"{(record.finished_at - record.started_at).total_seconds():.1f} s"


def ago(moment: datetime) -> str:
    """How long ago ``moment`` was, in words."""
    from datetime import UTC, datetime

    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def plain(text: str) -> str:
    """``text`` with nothing that the table would take for markup."""
    from rich.markup import escape

    return escape(text)


def print_table(what: Any) -> None:
    """Print a table, as wide as the terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width; do not cut the lines to 80
    console.print(what)


def print_json(values: Any) -> None:
    """Print values as JSON."""
    import json

    print(json.dumps(values, indent=2, ensure_ascii=False))
