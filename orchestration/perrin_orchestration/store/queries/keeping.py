"""Retention: what ended long ago is deleted, and bytes that no row names with it."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "DELETE_ARTIFACTS",
    "DELETE_COSTS",
    "DELETE_EDGES",
    "DELETE_EVENTS",
    "DELETE_GROUPS",
    "DELETE_JOBS",
    "FORGET_RETRY",
    "HASHES_IN_USE",
    "OLD_JOBS",
]

# Jobs that ended before a moment, oldest first: succeeded ones before one, the others before another. A job stays while
# a child of it lives, whose parameters name its artifacts.
OLD_JOBS = Query(
    """
SELECT id, group_id FROM jobs
WHERE finished_at IS NOT NULL AND finished_at < :latest
    AND finished_at < CASE WHEN state = 'succeeded' THEN :succeeded_before ELSE :others_before END
    AND NOT EXISTS (
        SELECT 1 FROM edges JOIN jobs AS child ON child.id = edges.child_id
        WHERE edges.parent_id = jobs.id AND child.finished_at IS NULL)
ORDER BY finished_at LIMIT :limit
""",
    "jobs_finished_ix",
    "edges_parent_ix",
    "jobs_id_key",
)

DELETE_ARTIFACTS = Query(
    """
DELETE FROM artifacts WHERE job_id IN :ids RETURNING sha256
""",
    "artifacts_job_id_key",
)

DELETE_COSTS = Query(
    """
DELETE FROM costs WHERE job_id IN :ids
""",
    "costs_pkey",
)

DELETE_EVENTS = Query(
    """
DELETE FROM events WHERE job_id IN :ids
""",
    "events_pkey",
)

# Edges to them and from them.
DELETE_EDGES = Query(
    """
DELETE FROM edges WHERE child_id IN :ids OR parent_id IN :ids
""",
    "edges_pkey",
    "edges_parent_ix",
)

# A job that was a retry of one of them is nobody's retry any more.
FORGET_RETRY = Query(
    """
UPDATE jobs SET retry_of = NULL WHERE retry_of IN :ids
""",
    "jobs_retry_ix",
)

DELETE_JOBS = Query(
    """
DELETE FROM jobs WHERE id IN :ids
""",
    "jobs_id_key",
)

# Groups that nothing is left of.
DELETE_GROUPS = Query(
    """
DELETE FROM groups WHERE id IN :ids AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.group_id = groups.id)
""",
    "groups_pkey",
    "jobs_group_ix",
)

# Which of these hashes a result still has.
HASHES_IN_USE = Query(
    """
SELECT DISTINCT sha256 FROM artifacts WHERE sha256 IN :hashes
""",
    "artifacts_sha256_ix",
)
