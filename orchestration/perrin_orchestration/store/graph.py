"""The order in which the jobs of a group can run: parents before children, or the circle that forbids it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from perrin.errors import InvalidInput

__all__ = ["in_order"]


def in_order(drafts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The drafts of a group, parents first; their edges name ids where they named jobs of the group.

    Args:
        drafts: each with ``id``, ``name`` (or None) and ``edges``.

    Raises:
        InvalidInput: a name is given twice, or jobs wait for each other in a circle.
    """
    ids: dict[str, str] = {}
    for draft in drafts:
        if draft["name"] is not None:
            if draft["name"] in ids:
                raise InvalidInput("name", draft["name"], "a name that no other job of the group has")
            ids[draft["name"]] = draft["id"]
    by_id = {draft["id"]: draft for draft in drafts}
    for draft in drafts:
        draft["edges"] = [replace(edge, parent=ids.get(edge.parent, edge.parent)) for edge in draft["edges"]]
    sorter = TopologicalSorter(
        {draft["id"]: [edge.parent for edge in draft["edges"] if edge.parent in by_id] for draft in drafts}
    )
    try:
        return [by_id[job_id] for job_id in sorter.static_order()]
    except CycleError as error:
        circle = " -> ".join(str(by_id[job_id]["name"]) for job_id in reversed(error.args[1]))
        raise InvalidInput("parents", circle, "no job that waits for itself") from None
