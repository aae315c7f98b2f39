"""Users, their keys, and the workers."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "ACCOUNTS",
    "DRAIN_WORKER",
    "FORGET_WORKERS",
    "HELD_JOBS",
    "INSERT_KEY",
    "INSERT_USER",
    "KEY",
    "LIVE_WORKERS",
    "LOSE_WORKERS",
    "MAKE_OPERATOR",
    "REMOVE_WORKER",
    "REVOKE_KEY",
    "SEE_WORKER",
    "SET_SHARE",
    "USER_BY_NAME",
    "WARM_WORKERS",
    "WORKERS",
]

INSERT_USER = Query("""
INSERT INTO users (id, name, created_at) VALUES (:id, :name, :now) ON CONFLICT (name) DO NOTHING
""")

USER_BY_NAME = Query(
    """
SELECT id, name, operator FROM users WHERE name = :name
""",
    "users_name_key",
)

# May pause, drain and resume pools.
MAKE_OPERATOR = Query(
    """
UPDATE users SET operator = TRUE WHERE id = :id
""",
    "users_pkey",
)

# A user with share 2 gets twice the GPU-seconds of one with share 1 while both have work.
SET_SHARE = Query(
    """
UPDATE users SET share = :share WHERE name = :name RETURNING id
""",
    "users_name_key",
)

# Every user's share and account. There are as many rows as people.
ACCOUNTS = Query(
    """
SELECT name, share, used, active FROM users ORDER BY name
""",
    "users_name_key",
)

INSERT_KEY = Query("""
INSERT INTO api_keys (id, user_id, label, sha256, created_at) VALUES (:id, :user_id, :label, :sha256, :now)
ON CONFLICT (sha256) DO NOTHING
""")

KEY = Query(
    """
SELECT api_keys.sha256, users.id, users.name, users.operator
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.sha256 = :sha256 AND api_keys.revoked_at IS NULL
""",
    "api_keys_sha256_key",
    "users_pkey",
)

REVOKE_KEY = Query(
    """
UPDATE api_keys SET revoked_at = :now WHERE sha256 = :sha256 AND revoked_at IS NULL RETURNING id
""",
    "api_keys_sha256_key",
)

# --- workers ----------------------------------------------------------------------------------------------------------

# A worker says that it lives. `drain` is written by others and left alone.
SEE_WORKER = Query("""
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
""")

DRAIN_WORKER = Query(
    """
UPDATE workers SET drain = TRUE WHERE id = :id RETURNING id
""",
    "workers_pkey",
)

# A worker not heard of is lost; what it held comes back by its leases, never by this row.
LOSE_WORKERS = Query(
    """
UPDATE workers SET state = 'lost' WHERE seen_at < :before AND state <> 'lost' RETURNING id
""",
    "workers_seen_at_ix",
)

FORGET_WORKERS = Query(
    """
DELETE FROM workers WHERE state = 'lost' AND seen_at < :before
""",
    "workers_seen_at_ix",
)

REMOVE_WORKER = Query(
    """
DELETE FROM workers WHERE id = :id
""",
    "workers_pkey",
)

WORKERS = Query(
    """
SELECT * FROM workers ORDER BY started_at, id
""",
    "workers_started_ix",
)

WARM_WORKERS = Query(
    """
SELECT models FROM workers WHERE state = 'idle' AND seen_at >= :after AND id <> :id
""",
    "workers_seen_at_ix",
)

LIVE_WORKERS = Query(
    """
SELECT COUNT(*) AS workers FROM workers WHERE state <> 'lost' AND seen_at >= :after
""",
    "workers_seen_at_ix",
)

# Who holds what; of one user's jobs only.
HELD_JOBS = Query(
    """
SELECT worker, id FROM jobs WHERE owner IS NOT NULL AND user_id = :user_id ORDER BY number
""",
    "jobs_held_ix",
)
