"""Users and API keys. A key is 256 random bits; the store has only its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable

from sqlalchemy.engine import Connection

from perrin.errors import NotAllowed
from perrin_orchestration.store import queries, rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.values import User

__all__ = ["People", "new_api_key"]


def new_api_key() -> str:
    """A fresh API key."""
    return "perrin_" + secrets.token_urlsafe(32)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class People:
    """Users and their API keys in ``database``."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str) -> User:
        """The user called ``name``, made if there is none yet."""
        values = {"id": uuid.uuid4().hex, "name": name, "now": self._clock()}

        def work(connection: Connection) -> User:
            execute(connection, queries.INSERT_USER, values)
            return User(**rows.select(connection, queries.USER_BY_NAME, {"name": name})[0])

        return self._database.write(work)

    def allow(self, user: User, key: str, label: str = "") -> None:
        """Let ``key`` act for ``user``. Allowing it again changes nothing."""
        values = {"id": uuid.uuid4().hex, "user_id": user.id, "label": label, "sha256": _sha256(key)}
        self._database.write(lambda c: execute(c, queries.INSERT_KEY, {**values, "now": self._clock()}))

    def revoke(self, key: str) -> None:
        """``key`` opens nothing any more."""
        values = {"sha256": _sha256(key), "now": self._clock()}
        self._database.write(lambda c: rows.select(c, queries.REVOKE_KEY, values))

    def who(self, key: str) -> User:
        """The user that ``key`` acts for.

        Raises:
            NotAllowed: nobody.
        """
        digest = _sha256(key)
        for row in self._database.read(lambda c: rows.select(c, queries.KEY, {"sha256": digest})):
            if hmac.compare_digest(row["sha256"], digest):
                return User(row["id"], row["name"])
        raise NotAllowed("the API key is not known here: set PERRIN_API_KEY to the key that `perrin up` wrote")
