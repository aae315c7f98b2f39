"""``perrin pool``: the pools of workers; pause, drain and resume them."""

from __future__ import annotations

from typing import Annotated

import typer

from perrin.commands.jobs import Json, plain, print_json, print_table

__all__ = ["pool"]

Name = Annotated[str, typer.Argument(help="The pool's name, such as image.", metavar="NAME", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, for whoever wonders.")]

pool = typer.Typer(help="See the pools of workers; pause, drain and resume them.", no_args_is_help=True)


@pool.command("list")
def _list(as_json: Json = False) -> None:
    """List the pools and what is in them."""
    from rich.table import Table

    from perrin.client import Client

    with Client() as client:
        found = client.pools()
    if as_json:
        return print_json([record.model_dump(mode="json") for record in found])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("pool", "state", "jobs", "reason"):
        table.add_column(name)
    for record in found:
        states = ", ".join(f"{count} {state}" for state, count in record.states.items())
        table.add_row(record.name, record.state, states or "none", plain(record.reason))
    return print_table(table)


@pool.command("pause")
def _pause(name: Name, reason: Reason = "") -> None:
    """Let no job of a pool begin; what runs goes on."""
    _change(name, "pause", reason)


@pool.command("drain")
def _drain(name: Name, reason: Reason = "") -> None:
    """Let no job be submitted to a pool; what is there is worked off."""
    _change(name, "drain", reason)


@pool.command("resume")
def _resume(name: Name) -> None:
    """As usual again."""
    _change(name, "resume", "")


def _change(name: str, action: str, reason: str) -> None:
    from perrin.client import Client

    with Client() as client:
        print(f"pool {name} is {client.change_pool(name, action, reason).state}")
