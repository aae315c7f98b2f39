"""Jobs come in: alone, in lists, in groups, with parents; and the hints that go with them."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "CHILDREN",
    "DELETE_HINTS",
    "DUE",
    "FEED",
    "GROUP_BY_KEY",
    "INSERT_EDGE",
    "INSERT_EVENT",
    "INSERT_GROUP",
    "INSERT_INPUT",
    "INSERT_JOB",
    "INSERT_OUTBOX",
    "LOCK_JOBS",
    "MAKERS",
    "NEXT_DUE",
    "PARENT_DONE",
    "PENDING_HINTS",
    "QUEUED_POOLS",
    "USE_UPLOADS",
]

# A new job. Touches no row if its id is known (a retried transaction), its idempotency key was used, or the job that
# it is a retry of has been retried before.
INSERT_JOB = Query("""
INSERT INTO jobs (
    id, user_id, modality, model, parameters, format, label, search, idempotency_key, request_sha256, group_id, name,
    retry_of, parents_left, pool, priority, run_after, deadline, rank, state, event_count, created_at)
VALUES (
    :id, :user_id, :modality, :model, :parameters, :format, :label, :search, :idempotency_key, :request_sha256,
    :group_id, :name, :retry_of, :parents_left, :pool, :priority, :run_after, :deadline, :rank, :state, 1, :now)
ON CONFLICT DO NOTHING
""")

INSERT_EVENT = Query("""
INSERT INTO events (
    job_id, number, at, kind, state, stage, done, total, message, epoch, owner, worker, error_kind)
VALUES (
    :job_id, :number, :at, :kind, :state, :stage, :done, :total, :message, :epoch, :owner, :worker, :error_kind)
""")

# A new group. Touches no row if its id is known or its idempotency key was used.
INSERT_GROUP = Query("""
INSERT INTO groups (id, user_id, label, idempotency_key, request_sha256, created_at)
VALUES (:id, :user_id, :label, :idempotency_key, :request_sha256, :now)
ON CONFLICT DO NOTHING
""")

GROUP_BY_KEY = Query(
    """
SELECT * FROM groups WHERE user_id = :user_id AND idempotency_key = :idempotency_key
""",
    "groups_idempotency_key",
)

# --- dependencies -----------------------------------------------------------------------------------------------------

# A child waits for its parent; the id of the parent's artifact number `item` goes into the child's `parameter`.
INSERT_EDGE = Query("""
INSERT INTO edges (child_id, number, parent_id, parameter, item)
VALUES (:child_id, :number, :parent_id, :parameter, :item)
""")

# Jobs of one user as they are now, and as they stay until this transaction ends: an update locks on both databases.
LOCK_JOBS = Query(
    """
UPDATE jobs SET parents_left = parents_left WHERE id IN :ids AND user_id = :user_id RETURNING *
""",
    "jobs_id_key",
)

# Who waits for jobs that have just ended.
CHILDREN = Query(
    """
SELECT child_id, parent_id, parameter, item FROM edges WHERE parent_id IN :ids ORDER BY parent_id, child_id, number
""",
    "edges_parent_ix",
)

# One parent fewer to wait for. The row is locked from here, so its parameters may be read, changed and written.
PARENT_DONE = Query(
    """
UPDATE jobs SET parents_left = parents_left - :edges WHERE id = :id AND state = 'waiting' RETURNING *
""",
    "jobs_id_key",
)

# What the parents made is in the child's parameters by now.
FEED = Query(
    """
UPDATE jobs SET parameters = :parameters WHERE id = :id
""",
    "jobs_id_key",
)

# waiting -> queued: its parents are done and its time has come.
DUE = Query(
    """
UPDATE jobs SET state = 'queued', event_count = event_count + 1
WHERE state = 'waiting' AND parents_left = 0 AND run_after <= :now
RETURNING *
""",
    "jobs_due_ix",
)

# Whether there is any such job: asked without a write lock.
NEXT_DUE = Query(
    """
SELECT run_after FROM jobs WHERE state = 'waiting' AND parents_left = 0 AND run_after <= :now LIMIT 1
""",
    "jobs_due_ix",
)

# --- files that jobs take in ------------------------------------------------------------------------------------------

INSERT_INPUT = Query("""
INSERT INTO inputs (job_id, path, file_id) VALUES (:job_id, :path, :file_id)
""")

# Uploads of one user that a job is about to use; nobody deletes them from here on.
USE_UPLOADS = Query(
    """
UPDATE uploads SET used = TRUE WHERE id IN :ids AND user_id = :user_id RETURNING id
""",
    "uploads_pkey",
)

# The jobs that made these artifacts.
MAKERS = Query(
    """
SELECT artifacts.id, artifacts.job_id FROM artifacts JOIN jobs ON jobs.id = artifacts.job_id
WHERE artifacts.id IN :ids AND jobs.user_id = :user_id
""",
    "artifacts_pkey",
    "jobs_id_key",
)

# --- hints ------------------------------------------------------------------------------------------------------------

# The hint that goes with a job that has become claimable.
INSERT_OUTBOX = Query("""
INSERT INTO outbox (pool, job_id, created_at) VALUES (:pool, :id, :now)
""")

# Hints still to be sent: one line a pool, with the last row it stands for. The table is nearly empty at all times.
PENDING_HINTS = Query(
    """
SELECT pool, MAX(id) AS last FROM outbox GROUP BY pool ORDER BY pool
""",
    "outbox_pool_ix",
)

# Hints that were sent.
DELETE_HINTS = Query(
    """
DELETE FROM outbox WHERE pool = :pool AND id <= :last
""",
    "outbox_pool_ix",
)

# Pools that have claimable work, for the reconciler.
QUEUED_POOLS = Query(
    """
SELECT name FROM pools
WHERE state NOT IN ('paused', 'blocked')
    AND EXISTS (SELECT 1 FROM jobs WHERE jobs.state = 'queued' AND jobs.pool = pools.name)
ORDER BY name
""",
    "jobs_queue_ix",
)
