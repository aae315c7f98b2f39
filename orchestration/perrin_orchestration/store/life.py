"""What every change of a job brings with it, inside the transaction of the change: events, hints, children."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.inputs import put
from perrin.wire import JobState
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.queries import ending
from perrin_orchestration.store.queries import reading as read
from perrin_orchestration.store.queries import submitting as sql

__all__ = ["Part", "artifact_ids", "feed", "promote", "settle", "tell"]


class Part:
    """A part of the store: its database and its clock."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock = clock


def tell(
    connection: Connection, changed: Sequence[RowMapping], now: float, *, kind: str = "state", message: str = ""
) -> None:
    """Write the event of each changed row; its number is the one that the change has just raised."""
    if changed:
        execute(connection, sql.INSERT_EVENT, [rows.event_of(row, kind, message, now) for row in changed])


def promote(connection: Connection, now: float) -> int:
    """waiting -> queued for every job whose parents are done and whose time has come; how many."""
    due = rows.select(connection, sql.DUE, {"now": now})
    tell(connection, due, now)
    if due:
        execute(connection, sql.INSERT_OUTBOX, [{"pool": row["pool"], "id": row["id"], "now": now} for row in due])
    return len(due)


def settle(connection: Connection, ended: Iterable[RowMapping], now: float) -> None:
    """Jobs have ended: their children get what they made, or come to nothing with them; and so on down."""
    fed = False
    parents = {row["id"]: row for row in ended}
    while parents:
        edges = rows.select(connection, sql.CHILDREN, {"ids": tuple(parents)})
        good = tuple(key for key, row in parents.items() if row["state"] == JobState.SUCCEEDED)
        made = artifact_ids(connection, good) if any(edge["parent_id"] in good for edge in edges) else {}
        lost: dict[str, RowMapping] = {}
        for child_id in sorted({edge["child_id"] for edge in edges}):
            mine = [edge for edge in edges if edge["child_id"] == child_id]
            row, why = _one_child(connection, child_id, mine, parents, made)
            if why:
                lost |= {found["id"]: found for found in _abandon(connection, child_id, *why, now)}
            fed = fed or row is not None
        parents = lost
    if fed:
        promote(connection, now)


def feed(
    parameters: Mapping[str, Any], edges: Iterable[RowMapping | Mapping[str, Any]], made: Mapping[str, Sequence[str]]
) -> Any:
    """Parameters with the ids of what the parents made, or the line that says what is missing.

    Args:
        parameters: of the child.
        edges: dependencies on parents that have succeeded.
        made: ids of their artifacts, by parent.
    """
    values = dict(parameters)
    for edge in edges:
        found, item = made.get(edge["parent_id"], ()), edge["item"]
        if edge["parameter"] is None:
            continue
        if item >= len(found):
            return f"{edge['parameter']} wants artifact {item} of job {edge['parent_id']}, which made {len(found)}"
        values = put(values, edge["parameter"], found[item])
    return values


def _one_child(
    connection: Connection,
    child_id: str,
    edges: Sequence[RowMapping],
    parents: Mapping[str, RowMapping],
    made: Mapping[str, Sequence[str]],
) -> tuple[RowMapping | None, tuple[str, str, str] | None]:
    """The child's row if it was still waiting and has been fed; else why it comes to nothing: state, kind, message."""
    for edge in edges:
        parent = parents[edge["parent_id"]]
        if parent["state"] != JobState.SUCCEEDED:
            state = "cancelled" if parent["state"] == JobState.CANCELLED else "failed"
            return None, (state, "parent", f"its parent {parent['id']} ended {parent['state']}")
    found = rows.select(connection, sql.PARENT_DONE, {"id": child_id, "edges": len(edges)})
    if not found:
        return None, None
    values = feed(json.loads(found[0]["parameters"]), edges, made)
    if isinstance(values, str):
        return None, ("failed", "parent", values)
    execute(connection, sql.FEED, {"id": child_id, "parameters": rows.to_json(values)})
    return found[0], None


def _abandon(
    connection: Connection, child_id: str, state: str, kind: str, message: str, now: float
) -> Sequence[RowMapping]:
    values = {"id": child_id, "state": state, "kind": kind, "message": message, "now": now}
    changed = rows.select(connection, ending.ABANDON_CHILD, values)
    tell(connection, changed, now, message=message)
    return changed


def artifact_ids(connection: Connection, job_ids: tuple[str, ...]) -> dict[str, list[str]]:
    """Ids of the artifacts of jobs, in their order."""
    made: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for row in rows.select(connection, read.ARTIFACTS, {"job_ids": job_ids}):
        made[row["job_id"]].append(row["id"])
    return made
