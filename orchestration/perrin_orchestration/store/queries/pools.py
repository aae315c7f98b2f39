"""Pools: open, paused (nothing is claimed), draining (nothing is submitted; what is there is worked off), blocked.

A worker that cannot write results blocks its open pools, which claims nothing from them until they are opened again;
what an operator has set stays as it was set.
"""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = [
    "BLOCKED_POOLS",
    "BLOCK_POOLS",
    "INSERT_POOL",
    "POOLS",
    "POOLS_BY_NAME",
    "POOL_COUNTS",
    "SET_POOL",
    "UNBLOCK_POOLS",
]

# A pool begins with its first job.
INSERT_POOL = Query("""
INSERT INTO pools (name, state, reason, changed_at) VALUES (:name, 'open', '', :now) ON CONFLICT DO NOTHING
""")

# The pools that jobs are being submitted to.
POOLS_BY_NAME = Query(
    """
SELECT * FROM pools WHERE name IN :names
""",
    "pools_pkey",
)

POOLS = Query(
    """
SELECT * FROM pools ORDER BY name
""",
    "pools_pkey",
)

SET_POOL = Query(
    """
UPDATE pools SET state = :state, reason = :reason, changed_at = :now WHERE name = :name RETURNING *
""",
    "pools_pkey",
)

# open -> blocked.
BLOCK_POOLS = Query(
    """
UPDATE pools SET state = 'blocked', reason = :reason, changed_at = :now
WHERE name IN :names AND state = 'open' RETURNING name
""",
    "pools_pkey",
)

# Those of these pools that are blocked.
BLOCKED_POOLS = Query(
    """
SELECT name FROM pools WHERE name IN :names AND state = 'blocked'
""",
    "pools_pkey",
)

# blocked -> open.
UNBLOCK_POOLS = Query(
    """
UPDATE pools SET state = 'open', reason = '', changed_at = :now
WHERE name IN :names AND state = 'blocked' RETURNING name
""",
    "pools_pkey",
)

# How many jobs of each pool are in each of the states before an end.
POOL_COUNTS = Query(
    """
SELECT pool, state, COUNT(*) AS jobs FROM jobs WHERE finished_at IS NULL GROUP BY pool, state
""",
    "jobs_live_ix",
)
