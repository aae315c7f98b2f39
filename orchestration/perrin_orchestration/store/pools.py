"""Pools of workers, and what may be done to them: pause, drain, resume."""

from __future__ import annotations

from perrin.errors import Conflict, InvalidInput, UnknownName
from perrin_orchestration.store import rows
from perrin_orchestration.store.life import Part
from perrin_orchestration.store.queries import pools as sql
from perrin_orchestration.store.values import Pool

__all__ = ["Pools"]

STATES = {"pause": "paused", "drain": "draining", "resume": "open"}


class Pools(Part):
    """The pools in ``database``. A pool is known from its first job on."""

    def all(self) -> tuple[Pool, ...]:
        """Every pool, with how many of its jobs are in which state."""
        found = self.database.read(lambda c: (rows.select(c, sql.POOLS), rows.select(c, sql.POOL_COUNTS)))
        states: dict[str, dict[str, int]] = {}
        for row in found[1]:
            states.setdefault(row["pool"], {})[row["state"]] = row["jobs"]
        return tuple(rows.pool(row, states.get(row["name"], {})) for row in found[0])

    def set(self, name: str, action: str, reason: str = "") -> Pool:
        """Change a pool.

        Args:
            name: which.
            action: ``pause``: nothing of it is claimed; what runs goes on. ``drain``: nothing is submitted to it; what
                is there is worked off. ``resume``: as usual again.
            reason: why, for whoever wonders; at most 200 characters.

        Raises:
            InvalidInput: another action, or a longer reason.
            UnknownName: no job was ever submitted to such a pool.
            Conflict: it is so already.
        """
        if action not in STATES:
            raise InvalidInput("action", action, "one of " + ", ".join(STATES))
        if len(reason) > 200 or "\0" in reason:
            raise InvalidInput("reason", reason, "at most 200 characters, without null characters")
        values = {"name": name, "state": STATES[action], "reason": reason, "now": self._clock()}
        known = {pool.name: pool for pool in self.all()}
        if name not in known:
            raise UnknownName("pool", name, "one of " + (", ".join(known) or "none: no job was submitted yet"))
        if known[name].state == STATES[action]:
            raise Conflict(f"pool {name} is {STATES[action]} already")
        self.database.write(lambda c: rows.select(c, sql.SET_POOL, values))
        return next(pool for pool in self.all() if pool.name == name)
