"""Every statement that the store runs, whole.

Each runs on SQLite (3.35 or later) and on PostgreSQL; only the claim has two forms. Values are bound as ``:name``; no
statement is ever put together at run time.

Every change of a job raises ``event_count`` and returns the row, so that the event that tells of it gets its number in
the same transaction. Every write of a worker names ``(id, epoch, owner)`` and therefore touches no row once the lease
has gone to somebody else.
"""

from __future__ import annotations

# --- submit -----------------------------------------------------------------------------------------------------------

# A new job, queued. Touches no row if its id is known (a retried transaction) or its idempotency key was used.
INSERT_JOB = """
INSERT INTO jobs (
    id, user_id, modality, model, parameters, format, label, search, idempotency_key, request_sha256,
    pool, priority, run_after, deadline, state, event_count, created_at)
VALUES (
    :id, :user_id, :modality, :model, :parameters, :format, :label, :search, :idempotency_key, :request_sha256,
    :pool, :priority, :run_after, :deadline, 'queued', 1, :now)
ON CONFLICT DO NOTHING
"""

# The hint that goes with it.
INSERT_OUTBOX = """
INSERT INTO outbox (pool, job_id, created_at) VALUES (:pool, :id, :now)
"""

# Hints still to be sent: one line a pool, with the last row it stands for.
PENDING_HINTS = """
SELECT pool, MAX(id) AS last FROM outbox GROUP BY pool ORDER BY pool
"""

# Hints that were sent.
DELETE_HINTS = """
DELETE FROM outbox WHERE pool = :pool AND id <= :last
"""

# Pools that have claimable work, for the reconciler.
QUEUED_POOLS = """
SELECT DISTINCT pool FROM jobs WHERE state = 'queued' AND run_after <= :now ORDER BY pool
"""

# --- lease ------------------------------------------------------------------------------------------------------------

# Take up to :limit jobs, best first. Rows that another claim is looking at are skipped, not waited for.
CLAIM_POSTGRESQL = """
WITH picked AS MATERIALIZED (
    SELECT number FROM jobs
    WHERE state = 'queued' AND pool IN :pools AND run_after <= :now AND (deadline IS NULL OR deadline > :now)
    ORDER BY priority DESC, number
    LIMIT :limit
    FOR UPDATE SKIP LOCKED)
UPDATE jobs SET
    state = 'leased', epoch = epoch + 1, attempts = attempts + 1, owner = :owner, worker = :worker,
    lease_until = :until, event_count = event_count + 1
FROM picked WHERE jobs.number = picked.number
RETURNING jobs.*
"""

# The same inside BEGIN IMMEDIATE, which lets one writer in at a time.
CLAIM_SQLITE = """
UPDATE jobs SET
    state = 'leased', epoch = epoch + 1, attempts = attempts + 1, owner = :owner, worker = :worker,
    lease_until = :until, event_count = event_count + 1
WHERE number IN (
    SELECT number FROM jobs
    WHERE state = 'queued' AND pool IN :pools AND run_after <= :now AND (deadline IS NULL OR deadline > :now)
    ORDER BY priority DESC, number
    LIMIT :limit)
RETURNING *
"""

# leased -> running.
START = """
UPDATE jobs SET state = 'running', started_at = COALESCE(started_at, :now), event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner AND state = 'leased'
RETURNING *
"""

# Progress is proof of life: it extends the lease.
PROGRESS = """
UPDATE jobs SET stage = :stage, done = :done, total = :total, lease_until = :until, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
"""

# Another job of the same engine moved, so this one is in good hands while it waits for its turn.
RENEW = """
UPDATE jobs SET lease_until = :until WHERE id = :id AND epoch = :epoch AND owner = :owner RETURNING id
"""

# The sampler state to go on from.
SAVE = """
UPDATE jobs SET saved_sha256 = :sha256, saved_at = :now
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
"""

# running -> committing: from here on files are staged. A job that was asked to stop does not get here.
COMMITTING = """
UPDATE jobs SET state = 'committing', event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner AND state = 'running' AND NOT cancel_requested
RETURNING *
"""

# committing -> succeeded. A cancel that was acknowledged before this wins.
COMMIT = """
UPDATE jobs SET
    state = 'succeeded', owner = NULL, lease_until = NULL, saved_sha256 = NULL, finished_at = :now,
    event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner AND state = 'committing' AND NOT cancel_requested
RETURNING *
"""

INSERT_ARTIFACT = """
INSERT INTO artifacts (id, job_id, number, name, media_type, size, sha256, items, details, created_at)
VALUES (:id, :job_id, :number, :name, :media_type, :size, :sha256, :items, :details, :now)
"""

# held -> failed | cancelled.
END_HELD = """
UPDATE jobs SET
    state = :state, owner = NULL, lease_until = NULL, saved_sha256 = NULL, finished_at = :now,
    error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
"""

# held -> queued, by its holder's own will (drain); it goes on from its saved state elsewhere.
RELEASE = """
UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
"""

# --- what happens to jobs from outside --------------------------------------------------------------------------------

# Not held by anybody: cancelled at once.
CANCEL_QUEUED = """
UPDATE jobs SET
    state = 'cancelled', cancel_requested = TRUE, finished_at = :now, error_kind = 'cancelled',
    error_message = :message, event_count = event_count + 1
WHERE id = :id AND user_id = :user_id AND state IN ('waiting', 'queued')
RETURNING *
"""

# Held: a flag that its holder reads.
CANCEL_HELD = """
UPDATE jobs SET cancel_requested = TRUE, event_count = event_count + 1
WHERE id = :id AND user_id = :user_id AND owner IS NOT NULL AND NOT cancel_requested
RETURNING *
"""

# Cancels that a worker's engines have still to act on.
CANCELLATIONS = """
SELECT id, epoch, owner FROM jobs WHERE owner IN :owners AND cancel_requested
"""

# Whether there is anything for the reconciler to take back: asked without a write lock.
UNATTENDED = """
SELECT id FROM jobs WHERE (owner IS NOT NULL AND lease_until < :now) OR (state = 'queued' AND deadline <= :now) LIMIT 1
"""

# Leases that ran out. PostgreSQL's rows are locked by the updates that follow, which check the epoch again.
EXPIRED = """
SELECT * FROM jobs WHERE owner IS NOT NULL AND lease_until < :now
"""

# What an engine process held when it died.
HELD_BY = """
SELECT * FROM jobs WHERE owner = :owner
"""

# A lease that ended without its holder's word, to one of queued, quarantined, cancelled.
TAKE_BACK = """
UPDATE jobs SET
    state = :state, owner = NULL, lease_until = NULL, crashes = crashes + :crashes, finished_at = :finished_at,
    error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
"""

# Still queued when its time was over.
OVERDUE = """
UPDATE jobs SET
    state = 'failed', finished_at = :now, error_kind = 'deadline',
    error_message = 'still queued at its deadline', event_count = event_count + 1
WHERE state = 'queued' AND deadline <= :now
RETURNING *
"""

# --- read -------------------------------------------------------------------------------------------------------------

INSERT_EVENT = """
INSERT INTO events (job_id, number, at, kind, state, stage, done, total, message)
VALUES (:job_id, :number, :at, :kind, :state, :stage, :done, :total, :message)
"""

EVENTS = """
SELECT * FROM events WHERE job_id = :job_id AND number > :after ORDER BY number LIMIT :limit
"""

# A job of one user.
JOB = """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.id = :id AND jobs.user_id = :user_id
"""

# A job, whoever's it is.
ANY_JOB = """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id = :id
"""

JOB_BY_KEY = """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.user_id = :user_id AND jobs.idempotency_key = :idempotency_key
"""

JOBS_BY_ID = """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id WHERE jobs.id IN :ids
"""

# One page of a user's jobs, newest first. A filter that is NULL lets everything through.
LIST_JOBS = """
SELECT jobs.*, users.name AS user FROM jobs JOIN users ON users.id = jobs.user_id
WHERE jobs.user_id = :user_id
    AND (CAST(:state AS TEXT) IS NULL OR jobs.state = :state)
    AND (CAST(:modality AS TEXT) IS NULL OR jobs.modality = :modality)
    AND (CAST(:pattern AS TEXT) IS NULL OR jobs.search LIKE :pattern ESCAPE '!')
    AND (CAST(:before AS TEXT) IS NULL
         OR jobs.number < (SELECT number FROM jobs WHERE id = :before AND user_id = :user_id))
ORDER BY jobs.number DESC LIMIT :limit
"""

# Jobs that will be claimed before this one.
POSITION = """
SELECT COUNT(*) AS ahead FROM jobs
WHERE state = 'queued' AND pool = :pool AND run_after <= :now
    AND (priority > :priority OR (priority = :priority AND number < :number))
"""

ARTIFACTS = """
SELECT * FROM artifacts WHERE job_id IN :job_ids ORDER BY job_id, number
"""

# An artifact of one user.
ARTIFACT = """
SELECT artifacts.* FROM artifacts JOIN jobs ON jobs.id = artifacts.job_id
WHERE artifacts.id = :id AND jobs.user_id = :user_id
"""

JOB_COUNTS = """
SELECT state, pool, COUNT(*) AS jobs, MIN(created_at) AS oldest FROM jobs GROUP BY state, pool ORDER BY state, pool
"""

QUEUED_COUNT = """
SELECT COUNT(*) AS jobs FROM jobs WHERE state = 'queued'
"""

# --- workers ----------------------------------------------------------------------------------------------------------

# A worker says that it lives. `drain` is written by others and left alone.
SEE_WORKER = """
INSERT INTO workers (
    id, host, pid, device, pool, state, models, started_at, seen_at, finished_jobs, memory_mb, cpu_percent, gpu_percent)
VALUES (
    :id, :host, :pid, :device, :pool, :state, :models, :started_at, :now, :finished_jobs, :memory_mb, :cpu_percent,
    :gpu_percent)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, models = excluded.models, seen_at = excluded.seen_at,
    finished_jobs = excluded.finished_jobs, memory_mb = excluded.memory_mb, cpu_percent = excluded.cpu_percent,
    gpu_percent = excluded.gpu_percent
RETURNING drain
"""

DRAIN_WORKER = """
UPDATE workers SET drain = TRUE WHERE id = :id RETURNING id
"""

# A worker not heard of is lost; what it held comes back by its leases, never by this row.
LOSE_WORKERS = """
UPDATE workers SET state = 'lost' WHERE seen_at < :before AND state <> 'lost' RETURNING id
"""

FORGET_WORKERS = """
DELETE FROM workers WHERE state = 'lost' AND seen_at < :before
"""

REMOVE_WORKER = """
DELETE FROM workers WHERE id = :id
"""

WORKERS = """
SELECT * FROM workers ORDER BY started_at, id
"""

LIVE_WORKERS = """
SELECT COUNT(*) AS workers FROM workers WHERE state <> 'lost' AND seen_at >= :after
"""

# Who holds what; of one user's jobs only.
HELD_JOBS = """
SELECT worker, id FROM jobs WHERE owner IS NOT NULL AND user_id = :user_id ORDER BY number
"""

# --- users ------------------------------------------------------------------------------------------------------------

INSERT_USER = """
INSERT INTO users (id, name, created_at) VALUES (:id, :name, :now) ON CONFLICT (name) DO NOTHING
"""

USER_BY_NAME = """
SELECT id, name FROM users WHERE name = :name
"""

INSERT_KEY = """
INSERT INTO api_keys (id, user_id, label, sha256, created_at) VALUES (:id, :user_id, :label, :sha256, :now)
ON CONFLICT (sha256) DO NOTHING
"""

KEY = """
SELECT api_keys.sha256, users.id, users.name FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.sha256 = :sha256 AND api_keys.revoked_at IS NULL
"""

REVOKE_KEY = """
UPDATE api_keys SET revoked_at = :now WHERE sha256 = :sha256 AND revoked_at IS NULL RETURNING id
"""
