"""Users and API keys. A key is 256 random bits; the store has only its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable

from sqlalchemy.engine import Connection, RowMapping

from perrin.errors import InvalidInput, NotAllowed, NotFound
from perrin_orchestration.store import rows
from perrin_orchestration.store.database import Database, execute
from perrin_orchestration.store.queries import people as queries
from perrin_orchestration.store.values import Account, User

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

    def add(self, name: str, *, operator: bool = False) -> User:
        """The user called ``name``, made if there is none yet; ``operator`` also lets them look after pools."""
        values = {"id": uuid.uuid4().hex, "name": name, "now": self._clock()}

        def work(connection: Connection) -> User:
            execute(connection, queries.INSERT_USER, values)
            user = _user(rows.select(connection, queries.USER_BY_NAME, {"name": name})[0])
            if operator and not user.operator:
                execute(connection, queries.MAKE_OPERATOR, {"id": user.id})
                return User(user.id, user.name, True)
            return user

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
                return _user(row)
        raise NotAllowed("the API key is not known here: set PERRIN_API_KEY to the key that `perrin up` wrote")

    # --- accounts -----------------------------------------------------------------------------------------------------

    def share(self, name: str, share: float) -> None:
        """Give a user ``share`` times the GPU-seconds of a user with share 1, while both have work.

        Raises:
            InvalidInput: not a number from 0.01 to 100.
            NotFound: there is no such user.
        """
        if not 0.01 <= share <= 100:
            raise InvalidInput("share", share, "a number from 0.01 to 100")
        values = {"name": name, "share": share}
        if not self._database.write(lambda c: rows.select(c, queries.SET_SHARE, values)):
            raise NotFound(f"there is no user {name[:40]!r}")

    def accounts(self) -> tuple[Account, ...]:
        """Every user's share, and what they have had."""
        found = self._database.read(lambda c: rows.select(c, queries.ACCOUNTS))
        return tuple(Account(row["name"], row["share"], row["used"], bool(row["active"])) for row in found)


def _user(row: RowMapping) -> User:
    return User(row["id"], row["name"], bool(row["operator"]))
