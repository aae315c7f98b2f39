"""Jobs, groups, events and results are looked at. Nothing here takes a write lock."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "ANY_JOB",
    "ARTIFACT",
    "ARTIFACTS",
    "CHILD_IDS",
    "COSTS",
    "DEAD_JOBS",
    "EDGES",
    "EVENTS",
    "FILES",
    "GROUP",
    "GROUPS",
    "GROUP_COUNTS",
    "GROUP_JOBS",
    "INPUTS",
    "JOB",
    "JOBS_BY_ID",
    "JOB_BY_KEY",
    "JOB_COUNTS",
    "LINE",
    "LINE_LENGTH",
    "LIST_JOBS",
    "QUEUED_USERS",
    "TURNS",
]

# A job of one user.
JOB = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.id = :id AND jobs.user_id = :user_id
""",
    "jobs_id_key",
    "users_pkey",
)

# A job, whoever's it is.
ANY_JOB = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id = :id
""",
    "jobs_id_key",
    "users_pkey",
)

JOB_BY_KEY = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.user_id = :user_id AND jobs.idempotency_key = :idempotency_key
""",
    "jobs_idempotency_key",
    "users_pkey",
)

JOBS_BY_ID = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id IN :ids
""",
    "jobs_id_key",
    "users_pkey",
)

# One page of a user's jobs, newest first. A filter that is NULL lets everything through.
LIST_JOBS = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.user_id = :user_id
    AND (CAST(:state AS TEXT) IS NULL OR jobs.state = :state)
    AND (CAST(:modality AS TEXT) IS NULL OR jobs.modality = :modality)
    AND (CAST(:pattern AS TEXT) IS NULL OR jobs.search LIKE :pattern ESCAPE '!')
    AND (CAST(:before AS TEXT) IS NULL
         OR jobs.number < (SELECT number FROM jobs WHERE id = :before AND user_id = :user_id))
ORDER BY jobs.number DESC LIMIT :limit
""",
    "jobs_user_ix",
    "users_pkey",
)

# The dead letters: jobs that came to nothing, and that nobody has tried again.
DEAD_JOBS = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.user_id = :user_id AND jobs.state IN ('failed', 'quarantined')
    AND NOT EXISTS (SELECT 1 FROM jobs AS again WHERE again.retry_of = jobs.id)
    AND (CAST(:before AS TEXT) IS NULL
         OR jobs.number < (SELECT number FROM jobs WHERE id = :before AND user_id = :user_id))
ORDER BY jobs.number DESC LIMIT :limit
""",
    "jobs_dead_ix",
    "jobs_retry_ix",
    "users_pkey",
)

# The jobs of a group, in the order in which they were submitted.
GROUP_JOBS = Query(
    """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.group_id = :group_id AND jobs.user_id = :user_id ORDER BY jobs.number
""",
    "jobs_group_ix",
    "users_pkey",
)

GROUP = Query(
    """
SELECT * FROM groups WHERE id = :id AND user_id = :user_id
""",
    "groups_pkey",
)

# A user's groups, newest first.
GROUPS = Query(
    """
SELECT * FROM groups WHERE user_id = :user_id ORDER BY created_at DESC, id DESC LIMIT :limit
""",
    "groups_user_ix",
)

GROUP_COUNTS = Query(
    """
SELECT group_id, state, COUNT(*) AS jobs FROM jobs WHERE group_id IN :ids GROUP BY group_id, state
""",
    "jobs_group_ix",
)

# What jobs wait for, or waited for.
CHILD_IDS = Query(
    """
SELECT DISTINCT jobs.number, edges.child_id FROM edges JOIN jobs ON jobs.id = edges.child_id
WHERE edges.parent_id = :id ORDER BY jobs.number LIMIT :limit
""",
    "edges_parent_ix",
    "jobs_id_key",
)

COSTS = Query(
    """
SELECT epoch, gpu_seconds, joules FROM costs WHERE job_id = :job_id
""",
    "costs_pkey",
)

EDGES = Query(
    """
SELECT * FROM edges WHERE child_id IN :ids ORDER BY child_id, number
""",
    "edges_pkey",
)

EVENTS = Query(
    """
SELECT * FROM events WHERE job_id = :job_id AND number > :after ORDER BY number LIMIT :limit
""",
    "events_pkey",
)

ARTIFACTS = Query(
    """
SELECT * FROM artifacts WHERE job_id IN :job_ids ORDER BY job_id, number
""",
    "artifacts_job_id_key",
)

# An artifact of one user.
ARTIFACT = Query(
    """
SELECT artifacts.* FROM artifacts JOIN jobs ON jobs.id = artifacts.job_id
WHERE artifacts.id = :id AND jobs.user_id = :user_id
""",
    "artifacts_pkey",
    "jobs_id_key",
)

# --- the queue --------------------------------------------------------------------------------------------------------

# Who has jobs in a pool's queue.
QUEUED_USERS = Query(
    """
WITH RECURSIVE line(user_id) AS (
    SELECT MIN(jobs.user_id) FROM jobs WHERE jobs.state = 'queued' AND jobs.pool = :pool
    UNION ALL
    SELECT (
        SELECT MIN(jobs.user_id) FROM jobs
        WHERE jobs.state = 'queued' AND jobs.pool = :pool AND jobs.user_id > line.user_id)
    FROM line WHERE line.user_id IS NOT NULL)
SELECT user_id FROM line WHERE user_id IS NOT NULL
""",
    "jobs_queue_ix",
)

# How many jobs of a user are before this one in a pool's queue; counted no further than :most.
TURNS = Query(
    """
SELECT COUNT(*) AS jobs FROM (
    SELECT 1 AS one FROM jobs
    WHERE state = 'queued' AND pool = :pool AND user_id = :user_id AND (rank, number) < (:rank, :number)
    LIMIT :most) AS ahead
""",
    "jobs_queue_ix",
)

# The first jobs of a user in a pool's queue, in order.
LINE = Query(
    """
SELECT number FROM jobs WHERE state = 'queued' AND pool = :pool AND user_id = :user_id
ORDER BY rank, number LIMIT :most
""",
    "jobs_queue_ix",
)

# How many jobs a user has in a pool's queue; counted no further than :most.
LINE_LENGTH = Query(
    """
SELECT COUNT(*) AS jobs FROM (
    SELECT 1 AS one FROM jobs WHERE state = 'queued' AND pool = :pool AND user_id = :user_id LIMIT :most) AS line
""",
    "jobs_queue_ix",
)

# For metrics: two indexes alone answer this, though all of them is read.
JOB_COUNTS = Query(
    """
SELECT state, pool, COUNT(*) AS jobs, MIN(created_at) AS oldest FROM jobs WHERE finished_at IS NULL
GROUP BY state, pool
UNION ALL
SELECT state, pool, COUNT(*), MIN(created_at) FROM jobs WHERE finished_at IS NOT NULL
GROUP BY state, pool
ORDER BY state, pool
""",
    "jobs_live_ix",
    "jobs_finished_ix",
)

# Artifacts and uploads of one user, as files that a job may take in.
FILES = Query(
    """
SELECT uploads.id, 'upload-' || uploads.id AS name, uploads.media_type, uploads.size, uploads.sha256
FROM uploads WHERE uploads.id IN :ids AND uploads.user_id = :user_id
UNION ALL
SELECT artifacts.id, artifacts.job_id || '-' || artifacts.name AS name, artifacts.media_type, artifacts.size,
    artifacts.sha256
FROM artifacts JOIN jobs ON jobs.id = artifacts.job_id WHERE artifacts.id IN :ids AND jobs.user_id = :user_id
""",
    "uploads_pkey",
    "artifacts_pkey",
    "jobs_id_key",
)

# What jobs take in, but for what their parents make.
INPUTS = Query(
    """
SELECT job_id, path, file_id FROM inputs WHERE job_id IN :ids ORDER BY job_id, path
""",
    "inputs_pkey",
)
