"""Pools of workers, and what may be done to them: pause, drain, resume; and what a full disk does to them."""

from __future__ import annotations

from collections.abc import Iterable

from perrin.errors import Conflict, InvalidInput, UnknownName
from perrin_orchestration.store import rows
from perrin_orchestration.store.life import Part
from perrin_orchestration.store.queries import pools as sql
from perrin_orchestration.store.values import Pool

__all__ = ["Pools"]

LONGEST_REASON = 200

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
        if len(reason) > LONGEST_REASON or "\0" in reason:
            raise InvalidInput("reason", reason, "at most 200 characters, without null characters")
        values = {"name": name, "state": STATES[action], "reason": reason, "now": self._clock()}
        known = {pool.name: pool for pool in self.all()}
        if name not in known:
            raise UnknownName("pool", name, "one of " + (", ".join(known) or "none: no job was submitted yet"))
        if known[name].state == STATES[action]:
            raise Conflict(f"pool {name} is {STATES[action]} already")
        self.database.write(lambda c: rows.select(c, sql.SET_POOL, values))
        return next(pool for pool in self.all() if pool.name == name)

    def block(self, names: Iterable[str], reason: str) -> tuple[str, ...]:
        """Claim nothing from these pools any more, because results cannot be written; those that were open.

        What an operator paused or drained stays so.
        """
        values = {"names": tuple(names), "reason": reason[:LONGEST_REASON], "now": self._clock()}
        return self._named(sql.BLOCK_POOLS, values)

    def blocked(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of these pools that are blocked."""
        found = self.database.read(lambda c: rows.select(c, sql.BLOCKED_POOLS, {"names": tuple(names)}))
        return tuple(row["name"] for row in found)

    def unblock(self, names: Iterable[str]) -> tuple[str, ...]:
        """Results can be written again: open what was blocked of these pools; which those were."""
        return self._named(sql.UNBLOCK_POOLS, {"names": tuple(names), "now": self._clock()})

    def _named(self, query: str, values: dict[str, object]) -> tuple[str, ...]:
        changed = self.database.write(lambda c: rows.select(c, query, values))
        return tuple(row["name"] for row in changed)
