"""A job is held: claimed, moved along, ended by its holder."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "CHARGE_ATTEMPT",
    "CHARGE_JOB",
    "CHARGE_USER",
    "CLAIM",
    "CLAIMED",
    "COMMIT",
    "COMMITTING",
    "END_HELD",
    "HEADS_POSTGRESQL",
    "HEADS_SQLITE",
    "HELD_NOW",
    "HIGHEST",
    "IDLE_USERS",
    "INSERT_ARTIFACT",
    "LIFT",
    "LINES",
    "LOCK_POSTGRESQL",
    "PROGRESS",
    "RELEASE",
    "RENEW",
    "REST",
    "SAVE",
    "START",
    "TRY_AGAIN",
]

# --- claim ------------------------------------------------------------------------------------------------------------

# Who has work in these pools: one row a pool and user, found by hopping along the index from user to user, with the
# user's account: GPU-seconds had (divided by the user's share), what a job of theirs usually takes, jobs held now.
LINES = Query(
    """
WITH RECURSIVE line(pool, user_id) AS (
    SELECT pools.name, (SELECT MIN(jobs.user_id) FROM jobs WHERE jobs.state = 'queued' AND jobs.pool = pools.name)
    FROM pools WHERE pools.name IN :pools AND pools.state NOT IN ('paused', 'blocked')
    UNION ALL
    SELECT line.pool, (
        SELECT MIN(jobs.user_id) FROM jobs
        WHERE jobs.state = 'queued' AND jobs.pool = line.pool AND jobs.user_id > line.user_id)
    FROM line WHERE line.user_id IS NOT NULL)
SELECT line.pool, line.user_id, users.used, users.share, users.typical, users.active,
    (SELECT COUNT(*) FROM jobs WHERE jobs.owner IS NOT NULL AND jobs.user_id = line.user_id) AS held
FROM line JOIN users ON users.id = line.user_id
ORDER BY line.user_id, line.pool
""",
    "pools_pkey",
    "jobs_queue_ix",
    "users_pkey",
    "jobs_held_ix",
)

# The fullest account of the users with work anywhere.
HIGHEST = Query(
    """
SELECT MAX(used) AS used FROM users WHERE active
""",
    "users_active_ix",
)

# A user who had no work and has some again begins level with those who had work meanwhile: idle time is not saved up.
LIFT = Query(
    """
UPDATE users SET used = CASE WHEN used < :used THEN :used ELSE used END, active = TRUE WHERE id = :id AND NOT active
""",
    "users_pkey",
)

# The first jobs of one user in one pool. PostgreSQL skips rows that another claim is looking at; SQLite lets one
# writer in at a time.
HEADS_SQLITE = Query(
    """
SELECT number, rank, model, created_at, run_after FROM jobs
WHERE state = 'queued' AND pool = :pool AND user_id = :user_id AND (deadline IS NULL OR deadline > :now)
ORDER BY rank, number LIMIT :limit
""",
    "jobs_queue_ix",
)
HEADS_POSTGRESQL = Query(
    """
SELECT number, rank, model, created_at, run_after FROM jobs
WHERE state = 'queued' AND pool = :pool AND user_id = :user_id AND (deadline IS NULL OR deadline > :now)
ORDER BY rank, number LIMIT :limit
FOR UPDATE SKIP LOCKED
""",
    "jobs_queue_ix",
)

# Those of some jobs that no other claim is looking at (PostgreSQL).
LOCK_POSTGRESQL = Query(
    """
SELECT number FROM jobs WHERE number IN :numbers AND state = 'queued' FOR UPDATE SKIP LOCKED
""",
    "jobs_pkey",
)

# queued -> leased.
CLAIM = Query(
    """
UPDATE jobs SET
    state = 'leased', epoch = epoch + 1, attempts = attempts + 1, owner = :owner, worker = :worker,
    lease_until = :until, error_kind = NULL, error_message = NULL, event_count = event_count + 1
WHERE number IN :numbers AND state = 'queued'
RETURNING *
""",
    "jobs_pkey",
)

# What a claim took whose reply was lost. Its lease ends at a moment that no other claim of this owner's has.
CLAIMED = Query(
    """
SELECT * FROM jobs WHERE owner = :owner AND state = 'leased' AND lease_until = :until ORDER BY rank, number
""",
    "jobs_lease_ix|jobs_owner_ix",
)

# --- hold -------------------------------------------------------------------------------------------------------------

# leased -> running.
START = Query(
    """
UPDATE jobs SET state = 'running', started_at = COALESCE(started_at, :now), event_count = event_count + 1
WHERE id IN :ids AND epoch = :epoch AND owner = :owner AND state = 'leased'
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

# Progress is proof of life: it extends the lease.
PROGRESS = Query(
    """
UPDATE jobs SET stage = :stage, done = :done, total = :total, lease_until = :until, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

# Another job of the same engine moved, so this one is in good hands while it waits for its turn.
RENEW = Query(
    """
UPDATE jobs SET lease_until = :until WHERE id = :id AND epoch = :epoch AND owner = :owner RETURNING id
""",
    "jobs_id_key|jobs_owner_ix",
)

# The sampler state to go on from.
SAVE = Query(
    """
UPDATE jobs SET saved_sha256 = :sha256, saved_at = :now
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING id
""",
    "jobs_id_key|jobs_owner_ix",
)

# running -> committing: from here on files are staged. A job that was asked to stop does not get here.
COMMITTING = Query(
    """
UPDATE jobs SET state = 'committing', event_count = event_count + 1
WHERE id IN :ids AND epoch = :epoch AND owner = :owner AND state = 'running' AND NOT cancel_requested
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

# --- end --------------------------------------------------------------------------------------------------------------

# committing -> succeeded. A cancel that was acknowledged before this wins.
COMMIT = Query(
    """
UPDATE jobs SET
    state = 'succeeded', owner = NULL, lease_until = NULL, saved_sha256 = NULL, finished_at = :now,
    event_count = event_count + 1
WHERE id IN :ids AND epoch = :epoch AND owner = :owner AND state = 'committing' AND NOT cancel_requested
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

INSERT_ARTIFACT = Query("""
INSERT INTO artifacts (id, job_id, number, name, media_type, size, sha256, items, details, created_at)
VALUES (:id, :job_id, :number, :name, :media_type, :size, :sha256, :items, :details, :now)
""")

# A job that is held under this lease, locked: what becomes of it depends on its past.
HELD_NOW = Query(
    """
UPDATE jobs SET epoch = epoch WHERE id = :id AND epoch = :epoch AND owner = :owner RETURNING *
""",
    "jobs_id_key|jobs_owner_ix",
)

# held -> failed | cancelled.
END_HELD = Query(
    """
UPDATE jobs SET
    state = :state, owner = NULL, lease_until = NULL, saved_sha256 = NULL, finished_at = :now,
    error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
""",
    "jobs_id_key|jobs_owner_ix",
)

# held -> waiting: it failed in a way that may pass, and is tried again after a pause; from its beginning, unless all
# that failed was keeping what it made.
TRY_AGAIN = Query(
    """
UPDATE jobs SET
    state = 'waiting', owner = NULL, lease_until = NULL,
    saved_sha256 = CASE WHEN :resume THEN saved_sha256 END, run_after = :run_after,
    retries = retries + 1, error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

# held -> queued, by its holder's own will (drain); it goes on from its saved state elsewhere.
RELEASE = Query(
    """
UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING id, epoch, owner, worker, state, stage, done, total, error_kind, event_count
""",
    "jobs_id_key|jobs_owner_ix",
)

# --- accounts ---------------------------------------------------------------------------------------------------------

# What a job has taken, whoever holds it by now: it was used up either way. Joules are NULL until a device tells some.
CHARGE_JOB = Query(
    """
UPDATE jobs SET
    gpu_seconds = gpu_seconds + :seconds,
    joules = CASE WHEN CAST(:joules AS DOUBLE PRECISION) IS NULL THEN joules
        ELSE COALESCE(joules, 0) + CAST(:joules AS DOUBLE PRECISION) END
WHERE id = :id
RETURNING user_id, epoch, gpu_seconds
""",
    "jobs_id_key",
)

# The same on the account of the attempt.
CHARGE_ATTEMPT = Query("""
INSERT INTO costs (job_id, epoch, gpu_seconds, joules) VALUES (:id, :epoch, :seconds, :joules)
ON CONFLICT (job_id, epoch) DO UPDATE SET
    gpu_seconds = costs.gpu_seconds + excluded.gpu_seconds,
    joules = CASE WHEN excluded.joules IS NULL THEN costs.joules
        ELSE COALESCE(costs.joules, 0) + excluded.joules END
""")

# The same on the user's account; `typical` follows what the user's jobs take.
CHARGE_USER = Query(
    """
UPDATE users SET used = used + :seconds / share, typical = typical + 0.2 * (:job - typical) WHERE id = :id
""",
    "users_pkey",
)

# Users for whom there is nothing to do, or nothing but what lies in a pool that
# nothing is claimed from.
IDLE_USERS = Query(
    """
SELECT id FROM users
WHERE active
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.owner IS NOT NULL AND jobs.user_id = users.id)
    AND NOT EXISTS (
        SELECT 1 FROM pools CROSS JOIN jobs
        WHERE jobs.pool = pools.name AND pools.state NOT IN ('paused', 'blocked') AND jobs.state = 'queued'
            AND jobs.user_id = users.id)
ORDER BY id
""",
    "users_active_ix",
    "jobs_held_ix",
    "jobs_queue_ix",
)

REST = Query(
    """
UPDATE users SET active = FALSE WHERE id IN :ids
""",
    "users_pkey",
)
