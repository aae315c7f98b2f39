"""What time it is, by the database's own clock."""

from __future__ import annotations

from perrin_orchestration.store.queries.query import Query

__all__ = ["NOW_POSTGRESQL"]

# Seconds since 1970, at this very moment rather than at the transaction's beginning.
NOW_POSTGRESQL = Query("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION) AS now")
