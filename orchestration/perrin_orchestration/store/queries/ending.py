"""What happens to jobs from outside their holder: cancelled, taken back, too late, tried anew by hand."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "ABANDON_CHILD",
    "CANCELLATIONS",
    "CANCEL_HELD",
    "CANCEL_QUEUED",
    "EXPIRED_POSTGRESQL",
    "EXPIRED_SQLITE",
    "HELD",
    "HELD_BY",
    "LAPSED",
    "LIVE_IN_GROUP",
    "OVERDUE",
    "OVERDUE_HELD",
    "RETRY_OF",
    "TAKE_BACK",
    "TOO_LATE",
]

# Not held by anybody: cancelled at once.
CANCEL_QUEUED = Query(
    """
UPDATE jobs SET
    state = 'cancelled', cancel_requested = TRUE, finished_at = :now, error_kind = 'cancelled',
    error_message = :message, event_count = event_count + 1
WHERE id = :id AND user_id = :user_id AND state IN ('waiting', 'queued')
RETURNING *
""",
    "jobs_id_key",
)

# Held: a flag that its holder reads.
CANCEL_HELD = Query(
    """
UPDATE jobs SET cancel_requested = TRUE, event_count = event_count + 1
WHERE id = :id AND user_id = :user_id AND owner IS NOT NULL AND NOT cancel_requested
RETURNING *
""",
    "jobs_id_key|jobs_held_ix",
)

# Cancels that a worker's engines have still to act on.
CANCELLATIONS = Query(
    """
SELECT id, epoch, owner FROM jobs WHERE owner IN :owners AND cancel_requested
""",
    "jobs_owner_ix",
)

# Jobs of a group that have not ended.
LIVE_IN_GROUP = Query(
    """
SELECT id FROM jobs
WHERE group_id = :group_id AND user_id = :user_id AND finished_at IS NULL AND NOT cancel_requested
ORDER BY number
""",
    "jobs_group_ix",
)

# Whether any lease has run out: asked without a write lock.
LAPSED = Query(
    """
SELECT id FROM jobs WHERE owner IS NOT NULL AND lease_until < :now LIMIT 1
""",
    "jobs_lease_ix",
)

# Leases that ran out. PostgreSQL leaves out rows that somebody else is writing just now, which may be their holder.
EXPIRED_SQLITE = Query(
    """
SELECT * FROM jobs WHERE owner IS NOT NULL AND lease_until < :now ORDER BY lease_until
""",
    "jobs_lease_ix",
)
EXPIRED_POSTGRESQL = Query(
    """
SELECT * FROM jobs WHERE owner IS NOT NULL AND lease_until < :now ORDER BY lease_until
FOR UPDATE SKIP LOCKED
""",
    "jobs_lease_ix",
)

# What an engine process held when it died.
HELD_BY = Query(
    """
SELECT * FROM jobs WHERE owner = :owner ORDER BY number
""",
    "jobs_owner_ix|jobs_lease_ix",
)

# Everything that anybody holds.
HELD = Query(
    """
SELECT * FROM jobs WHERE owner IS NOT NULL ORDER BY lease_until
""",
    "jobs_lease_ix",
)

# A lease that ended without its holder's word, to one of queued, quarantined, cancelled.
TAKE_BACK = Query(
    """
UPDATE jobs SET
    state = :state, owner = NULL, lease_until = NULL, crashes = crashes + :crashes, finished_at = :finished_at,
    error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND epoch = :epoch AND owner = :owner
RETURNING *
""",
    "jobs_id_key|jobs_owner_ix",
)

# --- deadlines --------------------------------------------------------------------------------------------------------

# Whether any job is past its deadline and nobody has done anything about it: asked without a write lock.
TOO_LATE = Query(
    """
SELECT id FROM jobs
WHERE deadline <= :now AND finished_at IS NULL AND deadline IS NOT NULL AND NOT cancel_requested LIMIT 1
""",
    "jobs_deadline_ix",
)

# Not even begun when its time was over.
OVERDUE = Query(
    """
UPDATE jobs SET
    state = 'failed', finished_at = :now, error_kind = 'deadline',
    error_message = 'not begun at its deadline', event_count = event_count + 1
WHERE deadline <= :now AND finished_at IS NULL AND deadline IS NOT NULL AND state IN ('waiting', 'queued')
RETURNING *
""",
    "jobs_deadline_ix",
)

# Begun and not finished when its time was over: its holder is asked to stop, and the reason kept.
OVERDUE_HELD = Query(
    """
UPDATE jobs SET
    cancel_requested = TRUE, error_kind = 'deadline', error_message = 'stopped at its deadline',
    event_count = event_count + 1
WHERE deadline <= :now AND finished_at IS NULL AND deadline IS NOT NULL AND owner IS NOT NULL AND NOT cancel_requested
RETURNING *
""",
    "jobs_deadline_ix",
)

# --- dependencies and retries -----------------------------------------------------------------------------------------

# A parent came to nothing, so its children do.
ABANDON_CHILD = Query(
    """
UPDATE jobs SET
    state = :state, finished_at = :now, error_kind = :kind, error_message = :message, event_count = event_count + 1
WHERE id = :id AND state = 'waiting'
RETURNING *
""",
    "jobs_id_key",
)

# The job that was made to try this one again.
RETRY_OF = Query(
    """
SELECT id, retry_of FROM jobs WHERE retry_of IN :ids
""",
    "jobs_retry_ix",
)
