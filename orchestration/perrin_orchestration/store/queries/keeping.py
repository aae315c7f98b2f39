"""Retention: what ended long ago is deleted, and bytes that no row names with it."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "DELETE_ARTIFACTS",
    "DELETE_COSTS",
    "DELETE_EDGES",
    "DELETE_EVENTS",
    "DELETE_GROUPS",
    "DELETE_INPUTS",
    "DELETE_JOBS",
    "DELETE_UPLOADS",
    "FORGET_RETRY",
    "HASHES_IN_USE",
    "KEEP_UPLOAD",
    "LOCK_OLD",
    "LOCK_UPLOADS",
    "OLD_JOBS",
    "STANDING",
    "STORE_ID",
    "UNUSED_UPLOADS",
    "UNUSE_UPLOADS",
]

# Jobs that ended before a moment, oldest first: succeeded ones before one, the others before another. A job stays while
# a child of it lives, or another job that takes one of its artifacts in.
OLD_JOBS = Query(
    """
SELECT id, group_id FROM jobs
WHERE finished_at IS NOT NULL AND finished_at < :latest
    AND finished_at < CASE WHEN state = 'succeeded' THEN :succeeded_before ELSE :others_before END
    AND NOT EXISTS (
        SELECT 1 FROM edges JOIN jobs AS child ON child.id = edges.child_id
        WHERE edges.parent_id = jobs.id AND child.finished_at IS NULL)
    AND NOT EXISTS (
        SELECT 1 FROM artifacts
            JOIN inputs ON inputs.file_id = artifacts.id
            JOIN jobs AS taker ON taker.id = inputs.job_id
        WHERE artifacts.job_id = jobs.id AND taker.finished_at IS NULL)
ORDER BY finished_at LIMIT :limit
""",
    "jobs_finished_ix",
    "edges_parent_ix",
    "jobs_id_key",
    "inputs_file_id_ix",
    "artifacts_job_id_key",
)

# Nobody takes anything from them from here on: who submits a job that does locks them too.
LOCK_OLD = Query(
    """
UPDATE jobs SET parents_left = parents_left WHERE id IN :ids
""",
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

DELETE_INPUTS = Query(
    """
DELETE FROM inputs WHERE job_id IN :ids RETURNING file_id
""",
    "inputs_pkey",
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
SELECT sha256 FROM artifacts WHERE sha256 IN :hashes
UNION
SELECT sha256 FROM uploads WHERE sha256 IN :hashes
""",
    "artifacts_sha256_ix",
    "uploads_sha256_key",
)

# The store's own id.
STORE_ID = Query(
    """
SELECT MIN(id) AS id FROM store
""",
    "store_pkey",
)

# --- uploads ----------------------------------------------------------------------------------------------------------

# The same bytes again are the same upload, and as young as if it were new.
KEEP_UPLOAD = Query("""
INSERT INTO uploads (id, user_id, media_type, size, sha256, created_at)
VALUES (:id, :user_id, :media_type, :size, :sha256, :now)
ON CONFLICT (sha256, user_id) DO UPDATE SET media_type = excluded.media_type, created_at = excluded.created_at
RETURNING id, media_type, size, sha256, created_at
""")

# Uploads that jobs used which are gone: locked, then looked at, so that a job that is submitted meanwhile is seen.
LOCK_UPLOADS = Query(
    """
UPDATE uploads SET used = used WHERE id IN :ids
""",
    "uploads_pkey",
)

UNUSE_UPLOADS = Query(
    """
UPDATE uploads SET used = FALSE
WHERE id IN :ids AND NOT EXISTS (SELECT 1 FROM inputs WHERE inputs.file_id = uploads.id)
""",
    "uploads_pkey",
    "inputs_file_id_ix",
)

UNUSED_UPLOADS = Query(
    """
SELECT id FROM uploads WHERE NOT used AND created_at < :before ORDER BY created_at LIMIT :limit
""",
    "uploads_unused_ix",
)

# Unless one was used just now.
DELETE_UPLOADS = Query(
    """
DELETE FROM uploads WHERE id IN :ids AND NOT used AND created_at < :before RETURNING sha256
""",
    "uploads_pkey|uploads_unused_ix",
)

# Which of these jobs have not ended, the epoch under which each is held now, and the state it would go on from.
STANDING = Query(
    """
SELECT id, CASE WHEN owner IS NOT NULL THEN epoch END AS held, saved_sha256 FROM jobs
WHERE id IN :ids AND finished_at IS NULL
""",
    "jobs_id_key",
)
