"""Jobs come in: alone, in lists, in groups with dependencies, and as another try of one that came to nothing.

Everything is checked inside the transaction that stores it, with the parents' rows locked, so that no parent can end
unnoticed while its child is being written.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.engine import Connection, RowMapping

from perrin.errors import Conflict, InvalidInput
from perrin.wire import JobState
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.gather import Gather
from perrin_orchestration.store.graph import in_order
from perrin_orchestration.store.life import Part, artifact_ids, feed
from perrin_orchestration.store.queries import ending, pools
from perrin_orchestration.store.queries import reading as read
from perrin_orchestration.store.queries import submitting as sql
from perrin_orchestration.store.reading import one
from perrin_orchestration.store.values import Edge, Group, Job, NewGroup, NewJob

__all__ = ["Submitter"]

Draft = dict[str, Any]


class Submitter(Part):
    """What brings jobs into the store."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database, clock)
        self._gather: Gather[tuple[NewJob, Draft], tuple[Job, bool]] = Gather(self._together)

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job and the hint that goes with it; when this returns, both are durable.

        Returns:
            The job, and whether it is new: False if this user's idempotency key brought an earlier one back.

        Raises:
            InvalidInput: a parent or the group is none of this user's.
            Conflict: the key was used for a different request, the pool is draining, or a parent came to nothing.
        """
        draft = _draft(new, self._clock())
        if draft["edges"] or draft["inputs"] or new.group_id is not None:
            return self.database.write(lambda connection: _submit(connection, new, draft))
        return self._gather((new, draft))

    def _together(self, asked: Sequence[tuple[NewJob, Draft]]) -> Sequence[tuple[Job, bool] | BaseException]:
        """Jobs that have nothing to do with each other, in one transaction if nothing keeps any of them out."""
        drafts = [draft for _, draft in asked]
        if len(asked) > 1:
            try:
                return [(job, True) for job in self.database.write(lambda connection: _submit_all(connection, drafts))]
            except Conflict:
                pass  # somebody's pool drains, or somebody's job is there already: each for itself
        return [self._alone(new, draft) for new, draft in asked]

    def _alone(self, new: NewJob, draft: Draft) -> tuple[Job, bool] | BaseException:
        try:
            return self.database.write(lambda connection: _submit(connection, new, draft))
        except Exception as error:
            return error

    def submit_many(self, new: Sequence[NewJob]) -> tuple[Job, ...]:
        """Store all of ``new`` in one transaction, or none.

        Raises:
            InvalidInput: a parent or a group is none of this user's.
            Conflict: one of them carries an idempotency key that was used before, its pool is draining, or a parent
                of it came to nothing.
        """
        now = self._clock()
        values = [_draft(item, now) for item in new]

        def work(connection: Connection) -> tuple[Job, ...]:
            _store_all(connection, values)
            return _jobs(connection, values)

        return self.database.write(work) if values else ()

    def submit_group(self, new: NewGroup) -> tuple[Group, tuple[Job, ...], bool]:
        """Store a group of jobs that may wait for each other, in one transaction.

        Returns:
            The group, its jobs in the order given, and whether it is new, as with `submit`.

        Raises:
            InvalidInput: names the job and the parent that is neither one of the group's names nor a job of this
                user; or the names that wait for each other in a circle.
            Conflict: as with `submit`.
        """
        now, group_id = self._clock(), uuid.uuid4().hex
        values = [_draft(replace(job, group_id=None), now) | {"group_id": group_id} for job in new.jobs]
        ordered = in_order(values)
        row = {"id": group_id, "user_id": new.user_id, "label": new.label, "now": now}
        row |= {"idempotency_key": new.idempotency_key, "request_sha256": new.request_sha256}

        def work(connection: Connection) -> tuple[Group, tuple[Job, ...], bool]:
            if execute(connection, sql.INSERT_GROUP, row):
                _store_all(connection, ordered, grouped=True)
                return _group(connection, group_id, new.user_id), _jobs(connection, values), True
            if rows.select(connection, read.GROUP, {"id": group_id, "user_id": new.user_id}):
                return _group(connection, group_id, new.user_id), _jobs(connection, values), True
            key = {"user_id": new.user_id, "idempotency_key": new.idempotency_key}
            earlier = rows.select(connection, sql.GROUP_BY_KEY, key)[0]
            if earlier["request_sha256"] != new.request_sha256:
                raise _other_request(new.idempotency_key, f"group {earlier['id']}")
            found = rows.select(connection, read.GROUP_JOBS, {"group_id": earlier["id"], "user_id": new.user_id})
            return _group(connection, earlier["id"], new.user_id), tuple(rows.job(job) for job in found), False

        return self.database.write(work)

    def retry(self, job_id: str, user_id: str) -> Job:
        """Try a job that came to nothing once more, as a new job; and with it those that ended for its sake.

        A new job, because an end is an end: what was told of the old one stays true.

        Raises:
            NotFound: this user has no such job.
            Conflict: it has not ended, has succeeded, was tried again before, or its parent came to nothing.
        """
        now = self._clock()
        ids: dict[str, str] = {}  # kept when the transaction is tried again

        def work(connection: Connection) -> Job:
            found = rows.select(connection, sql.LOCK_JOBS, {"ids": (job_id,), "user_id": user_id})
            again = _again(connection, found)
            if again is not None and again != ids.get(job_id):
                raise Conflict(f"job {job_id} was tried again already, as job {again}")
            if again is None:
                _refuse_retry(one(connection, read.JOB, {"id": job_id, "user_id": user_id}))
                _store_all(connection, _retries(connection, found[0], now, ids))
            return one(connection, read.ANY_JOB, {"id": ids[job_id]})

        return self.database.write(work)


# --- inside the transaction -------------------------------------------------------------------------------------------


def _submit(connection: Connection, new: NewJob, draft: Draft) -> tuple[Job, bool]:
    earlier = _earlier(connection, new) if new.idempotency_key is not None else None
    if earlier is not None:
        return earlier, earlier.id == draft["id"]
    if _store(connection, [draft]):
        return one(connection, read.ANY_JOB, {"id": draft["id"]}), True
    found = rows.select(connection, read.ANY_JOB, {"id": draft["id"]})
    if found:  # the first try of this very transaction was committed, and only its reply lost
        return rows.job(found[0]), True
    earlier = _earlier(connection, new)  # by another process, since this one looked
    assert earlier is not None, "nothing but its id or its key can keep a job out"
    return earlier, False


def _submit_all(connection: Connection, drafts: Sequence[Draft]) -> Sequence[Job]:
    if not _store(connection, drafts):
        raise Conflict("one of these jobs is in the store already")
    return _jobs(connection, drafts)


def _draft(new: NewJob, now: float) -> Draft:
    return rows.job_values(new, now) | {"edges": list(new.parents), "inputs": dict(new.inputs)}


def _store_all(connection: Connection, drafts: Sequence[Draft], *, grouped: bool = False) -> None:
    known = rows.select(connection, read.JOBS_BY_ID, {"ids": (drafts[0]["id"],)})
    if not known and not _store(connection, drafts, grouped=grouped):
        raise Conflict("an Idempotency-Key of the list was used before: nothing was submitted")


def _store(connection: Connection, drafts: Sequence[Draft], *, grouped: bool = False) -> bool:
    """Write jobs, parents before children; False, and nothing written, if one of them is in the store already."""
    now, user_id = drafts[0]["now"], drafts[0]["user_id"]
    _open_pools(connection, {draft["pool"] for draft in drafts}, now)
    if not grouped:
        _check_groups(connection, {draft["group_id"] for draft in drafts} - {None}, user_id)
    inputs = _inputs(connection, drafts, user_id)
    values, edges = _resolve(connection, drafts, user_id)
    if execute(connection, sql.INSERT_JOB, values) != len(values):
        return False
    if edges:
        execute(connection, sql.INSERT_EDGE, edges)
    if inputs:
        execute(connection, sql.INSERT_INPUT, inputs)
    queued = [item for item in values if item["state"] == "queued"]
    if queued:
        execute(connection, sql.INSERT_OUTBOX, queued)
    execute(connection, sql.INSERT_EVENT, [rows.first_event(item) for item in values])
    return True


def _resolve(connection: Connection, drafts: Sequence[Draft], user_id: str) -> tuple[list[Draft], list[Draft]]:
    """Rows of jobs and of edges. What a parent has made already goes into its child's parameters at once."""
    siblings = {draft["id"] for draft in drafts}
    wanted = {edge.parent for draft in drafts for edge in draft["edges"]} - siblings
    parents: dict[str, RowMapping] = {}
    made: Mapping[str, Sequence[str]] = {}
    if wanted:
        found = rows.select(connection, sql.LOCK_JOBS, {"ids": tuple(sorted(wanted)), "user_id": user_id})
        parents = {row["id"]: row for row in found}
        made = artifact_ids(connection, tuple(wanted))
    values, edges = [], []
    for draft in drafts:
        mine = [rows.edge_values(draft["id"], i, edge.parent, edge) for i, edge in enumerate(draft["edges"])]
        ready = [edge for edge in mine if edge["parent_id"] not in siblings and _ready(edge["parent_id"], parents)]
        item = {key: value for key, value in draft.items() if key not in ("edges", "inputs")}
        item["parents_left"] = len(mine) - len(ready)
        if ready:
            fed = feed(json.loads(draft["parameters"]), ready, made)
            if isinstance(fed, str):
                raise InvalidInput("parents", fed, "an artifact that the parent has")
            item["parameters"] = rows.to_json(fed)
        waits = item["parents_left"] > 0 or item["run_after"] > item["now"]
        item["state"] = "waiting" if waits else "queued"
        values.append(item)
        edges += mine
    return values, edges


def _inputs(connection: Connection, drafts: Sequence[Draft], user_id: str) -> list[Draft]:
    """Rows of the files that jobs take in, which are there, are this user's, and stay while the jobs do."""
    wanted = {file_id: path for draft in drafts for path, file_id in draft["inputs"].items()}
    if not wanted:
        return []
    whose = {"ids": tuple(sorted(wanted)), "user_id": user_id}
    found = {row["id"] for row in rows.select(connection, sql.USE_UPLOADS, whose)}
    makers = {row["job_id"] for row in rows.select(connection, sql.MAKERS, whose)}
    if makers:
        rows.select(connection, sql.LOCK_JOBS, {"ids": tuple(sorted(makers)), "user_id": user_id})
        found |= {row["id"] for row in rows.select(connection, sql.MAKERS, whose)}
    for file_id, path in wanted.items():
        if file_id not in found:
            raise InvalidInput(path, file_id, "the id of one of your artifacts or uploads")
    return [
        {"job_id": draft["id"], "path": path, "file_id": file_id}
        for draft in drafts
        for path, file_id in draft["inputs"].items()
    ]


def _ready(parent_id: str, parents: Mapping[str, RowMapping]) -> bool:
    row = parents.get(parent_id)
    if row is None:
        raise InvalidInput("parents", parent_id, "the id of one of your jobs, or a name in the same group")
    state = JobState(row["state"])
    if state.terminal and state is not JobState.SUCCEEDED:
        raise Conflict(f"job {parent_id}, a parent, has {state} already: `perrin retry {parent_id}` makes another")
    return state is JobState.SUCCEEDED


def _open_pools(connection: Connection, names: Iterable[str], now: float) -> None:
    found = {row["name"]: row for row in rows.select(connection, pools.POOLS_BY_NAME, {"names": tuple(sorted(names))})}
    for name in sorted(set(names) - set(found)):
        execute(connection, pools.INSERT_POOL, {"name": name, "now": now})
    for name, row in found.items():
        if row["state"] == "draining":
            reason = f" ({row['reason']})" if row["reason"] else ""
            raise Conflict(f"pool {name} is draining{reason}: it takes no jobs until it is resumed")


def _check_groups(connection: Connection, ids: Iterable[str], user_id: str) -> None:
    for group_id in ids:
        if not rows.select(connection, read.GROUP, {"id": group_id, "user_id": user_id}):
            raise InvalidInput("group", group_id, "the id of one of your groups")


def _earlier(connection: Connection, new: NewJob) -> Job | None:
    key = {"user_id": new.user_id, "idempotency_key": new.idempotency_key}
    found = rows.select(connection, read.JOB_BY_KEY, key)
    if not found:
        return None
    if found[0]["request_sha256"] != new.request_sha256:
        raise _other_request(new.idempotency_key, f"job {found[0]['id']}")
    return rows.job(found[0])


def _other_request(key: str | None, whose: str) -> Conflict:
    return Conflict(f"Idempotency-Key {key!r} belongs to {whose}, which asked for something else: use a new key")


def _jobs(connection: Connection, drafts: Sequence[Draft]) -> tuple[Job, ...]:
    ids = tuple(draft["id"] for draft in drafts)
    found = {row["id"]: row for row in rows.select(connection, read.JOBS_BY_ID, {"ids": ids})}
    return tuple(rows.job(found[job_id]) for job_id in ids)


def _group(connection: Connection, group_id: str, user_id: str) -> Group:
    row = rows.select(connection, read.GROUP, {"id": group_id, "user_id": user_id})[0]
    counts = rows.select(connection, read.GROUP_COUNTS, {"ids": (group_id,)})
    return rows.group(row, {count["state"]: count["jobs"] for count in counts})


# --- once more --------------------------------------------------------------------------------------------------------


def _again(connection: Connection, found: Sequence[RowMapping]) -> str | None:
    ids = tuple(row["id"] for row in found)
    later = rows.select(connection, ending.RETRY_OF, {"ids": ids}) if ids else []
    return str(later[0]["id"]) if later else None


def _refuse_retry(job: Job) -> None:
    if not job.state.terminal:
        raise Conflict(f"job {job.id} is {job.state}: it can be tried again once it has come to nothing")
    if job.state is JobState.SUCCEEDED:
        raise Conflict(f"job {job.id} has succeeded: submit it again for another result")


def _retries(connection: Connection, row: RowMapping, now: float, ids: dict[str, str]) -> list[Draft]:
    """Drafts of another try of a job, and of each job below it that ended because a parent did."""
    found, level = {row["id"]: row}, [row["id"]]
    while level:
        edges = rows.select(connection, sql.CHILDREN, {"ids": tuple(level)})
        below = tuple(sorted({edge["child_id"] for edge in edges} - set(found)))
        children = rows.select(connection, read.JOBS_BY_ID, {"ids": below}) if below else []
        level = [child["id"] for child in children if child["error_kind"] == "parent"]
        found |= {child["id"]: child for child in children if child["id"] in level}
    taken = {later["retry_of"] for later in rows.select(connection, ending.RETRY_OF, {"ids": tuple(found)})}
    kept = sorted((old for key, old in found.items() if key not in taken), key=lambda old: old["number"])
    for old in kept:
        ids.setdefault(old["id"], uuid.uuid4().hex)
    edges_of: dict[str, list[Edge]] = {old["id"]: [] for old in kept}
    for edge in rows.select(connection, read.EDGES, {"ids": tuple(edges_of)}):
        parent = ids.get(edge["parent_id"]) or _latest(connection, edge["parent_id"])
        edges_of[edge["child_id"]].append(Edge(parent, edge["parameter"], edge["item"]))
    inputs_of: dict[str, dict[str, str]] = {old["id"]: {} for old in kept}
    for row in rows.select(connection, read.INPUTS, {"ids": tuple(inputs_of)}):
        inputs_of[row["job_id"]][row["path"]] = row["file_id"]
    return [_copy(old, ids[old["id"]], edges_of[old["id"]], inputs_of[old["id"]], now) for old in kept]


def _latest(connection: Connection, job_id: str) -> str:
    """The last try of a job: itself, if it was never tried again."""
    while later := rows.select(connection, ending.RETRY_OF, {"ids": (job_id,)}):
        job_id = later[0]["id"]
    return job_id


def _copy(old: RowMapping, new_id: str, edges: list[Edge], inputs: Mapping[str, str], now: float) -> Draft:
    deadline = old["deadline"] if old["deadline"] is not None and old["deadline"] > now else None
    same = ("user_id", "modality", "model", "format", "label", "pool", "priority", "request_sha256", "name", "group_id")
    new = NewJob(
        **{key: old[key] for key in same}, parameters=json.loads(old["parameters"]), parents=edges, inputs=inputs
    )
    return _draft(replace(new, deadline=deadline), now) | {"id": new_id, "retry_of": old["id"]}
