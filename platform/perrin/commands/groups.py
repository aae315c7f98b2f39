"""``perrin group``: jobs that are submitted together, and that may take what the others make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from perrin.commands.jobs import Json, ago, plain, print_json, print_table

__all__ = ["group"]

GroupId = Annotated[str, typer.Argument(help="The group's id.", metavar="ID", show_default=False)]

group = typer.Typer(help="Submit jobs together, see them, stop them.", no_args_is_help=True)


@group.command("submit")
def _submit(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAML or JSON: a list of jobs, or `jobs:` and `label:`. Or a name of `perrin group chains`."
        ),
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all of it has ended.")] = False,
) -> None:
    """Submit the jobs of a file, all or none. Prints the group's id.

    A job has modality, parameters, and if need be name and parents; a parent has job (a name of the file, or an id),
    parameter (takes what the parent made) and item. Where a parameter takes a file, a path is meant from this file's
    folder, and what lies there is uploaded.
    """
    from perrin.client import Client

    jobs, label = _read(file)
    with Client() as client:
        schemas = {info.name: info.parameters for info in client.modalities()}
        made = client.submit_group([_with_paths(job, schemas, file.parent) for job in jobs], label=label)
        print(made.id, flush=True)
        if wait:
            made.wait()


def _read(file: Path) -> tuple[list[dict[str, Any]], str]:
    """Jobs and label of a file, or of a chain that ships."""
    import yaml

    from perrin.chains import chains
    from perrin.errors import InvalidInput, NotFound

    if not file.exists() and str(file) in chains():
        chain = chains()[str(file)]
        return [dict(job) for job in chain.jobs], chain.label
    if not file.is_file():
        raise NotFound(f"there is no file {file}")
    wanted = "a list of jobs, or an object with `jobs`"
    try:
        asked = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(str(file), "text that is neither YAML nor JSON", wanted) from error
    jobs = asked.get("jobs") if isinstance(asked, dict) else asked
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise InvalidInput(str(file), asked, wanted)
    return jobs, asked.get("label", "") if isinstance(asked, dict) else ""


def _with_paths(job: dict[str, Any], schemas: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    from perrin.inputs import filled, is_id

    schema, parameters = schemas.get(str(job.get("modality"))), job.get("parameters")
    if schema is None or not isinstance(parameters, dict):
        return job

    def path(slot: Any) -> Any:
        return folder / slot.value if isinstance(slot.value, str) and not is_id(slot.value) else slot.value

    return {**job, "parameters": filled(schema, parameters, path)}


@group.command("chains")
def _chains() -> None:
    """List the chains that ship: groups of which one job takes what another makes."""
    from rich.table import Table

    from perrin.chains import chains

    table = Table("name", "what becomes of what", "label", box=None, header_style="bold", pad_edge=False)
    for name, chain in chains().items():
        table.add_row(name, chain.about, chain.label)
    print_table(table)


@group.command("list")
def _list(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most this many.")] = 20, as_json: Json = False
) -> None:
    """List groups, newest first."""
    from rich.table import Table

    from perrin.client import Client

    with Client() as client:
        found = [one.record for one in client.groups(limit)]
    if as_json:
        return print_json([record.model_dump(mode="json", exclude={"jobs"}) for record in found])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "label", "jobs", "age"):
        table.add_column(name)
    for record in found:
        states = ", ".join(f"{count} {state}" for state, count in record.states.items())
        table.add_row(record.id, plain(record.label), states, ago(record.created_at))
    return print_table(table)


@group.command("show")
def _show(group_id: GroupId, as_json: Json = False) -> None:
    """Show the jobs of a group, in the order of their submission."""
    from rich.table import Table

    from perrin.client import Client

    with Client() as client:
        record = client.group(group_id).record
    if as_json:
        return print_json(record.model_dump(mode="json"))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("id", "name", "what", "state", "waits for", "error"):
        table.add_column(name)
    for job in record.jobs:
        parents = ", ".join(parent.job for parent in job.parents)
        error = plain(job.error.message) if job.error else ""
        table.add_row(job.id, plain(job.name or ""), job.modality, str(job.state), parents, error)
    return print_table(table)


@group.command("cancel")
def _cancel(group_id: GroupId) -> None:
    """Stop every job of a group that has not ended."""
    from perrin.client import Client

    with Client() as client:
        record = client.group(group_id).cancel()
    print(f"{record.id} " + ", ".join(f"{count} {state}" for state, count in record.states.items()))
