"""``perrin jobs``, ``job``, ``cancel`` and ``workers``: what the platform is doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from perrin.wire import JobRecord, WorkerRecord

__all__ = ["cancel", "job", "jobs", "workers"]

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
        found = [job.record for job in client.jobs(state=state, modality=modality, search=search, limit=limit)]
    if as_json:
        return _print_json([record.model_dump(mode="json") for record in found])
    if not found:
        print("no jobs; make one with `perrin submit`", file=sys.stderr)
        return None
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "state", "what", "prompt", "age", "took"):
        table.add_column(name, no_wrap=name == "id", overflow="ellipsis")
    for record in found:
        table.add_row(
            record.id,
            _state(record),
            record.modality,
            _plain(str(record.parameters.get("prompt", record.label))[:60]),
            _ago(record.created_at),
            _took(record),
        )
    return _print(table)


def job(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Show one job; with --watch, follow it to its end and return its outcome."""
    from perrin.client import Client

    with Client() as client:
        found = client.job(job_id)
        if watch:
            found.wait(progress=True)
    if as_json:
        return _print_json(found.record.model_dump(mode="json"))
    return _print(_details(found.record))


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.", metavar="ID...", show_default=False)],
) -> None:
    """Stop jobs, waiting or running."""
    from perrin.client import Client

    with Client() as client:
        for job_id in job_ids:
            record = client.cancel(job_id).record
            print(f"{record.id} {record.state if record.state.terminal else 'is being cancelled'}")


def workers(as_json: Json = False) -> None:
    """List the workers and what they are doing."""
    from rich.table import Table

    from perrin.client import Client

    with Client() as client:
        found = client.workers()
    if as_json:
        return _print_json([record.model_dump(mode="json") for record in found])
    if not found:
        print("no workers; start one with `perrin worker`", file=sys.stderr)
        return None
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "host", "device", "state", "jobs", "models", "done", "memory", "cpu", "gpu", "seen"):
        table.add_column(name)
    for record in found:
        table.add_row(*_worker_row(record))
    return _print(table)


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
        _ago(record.seen_at),
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
        "label": _plain(record.label),
        "created": f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "took": _took(record),
        "worker": record.worker or "",
        "attempts": str(record.attempts),
        "error": _plain(record.error.message) if record.error else "",
    }
    rows |= {f"  {name}": _plain(str(value)) for name, value in record.parameters.items() if value is not None}
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


def _ago(moment: datetime) -> str:
    from datetime import UTC, datetime

    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _plain(text: str) -> str:
    """``text`` with nothing that the table would take for markup."""
    from rich.markup import escape

    return escape(text)


def _print(what: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width; do not cut the lines to 80
    console.print(what)


def _print_json(values: Any) -> None:
    import json

    print(json.dumps(values, indent=2, ensure_ascii=False))
