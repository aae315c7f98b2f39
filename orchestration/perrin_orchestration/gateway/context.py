"""What every request of the gateway needs, made once; and whom a request comes from."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from perrin.errors import NotAllowed
from perrin.models import ModelCard, find, models
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.gateway.metrics import Metrics
from perrin_orchestration.store import JobStore, User
from perrin_orchestration.store.people import People
from perrin_orchestration.transport import HintSender

__all__ = ["Catalogue", "Context", "Ctx", "Me"]


@dataclass
class Catalogue:
    """Model cards, read again after a few seconds: a model that is added shows up without a restart.

    Attributes:
        settings: where models are.
        seconds: how long a card is believed.
    """

    settings: Settings
    seconds: float = 5.0
    _found: dict[tuple[str, str], tuple[float, ModelCard]] = field(default_factory=dict)

    def card(self, name: str, modality: str) -> ModelCard:
        """The card of a model of ``modality``.

        Raises:
            UnknownName: there is none; lists those there are.
        """
        key, now = (name, modality), time.monotonic()
        known = self._found.get(key)
        if known is None or now > known[0]:
            known = (now + self.seconds, find(name, modality, self.settings))
            self._found[key] = known
        return known[1]

    def all(self) -> list[ModelCard]:
        """Every model there is."""
        return list(models(self.settings).values())


@dataclass
class Keys:
    """Whom API keys act for, believed for a moment: so long a revoked key may still open something.

    Attributes:
        people: who is asked.
        seconds: how long an answer is believed.
    """

    people: People
    seconds: float = 1.0
    _found: dict[bytes, tuple[float, User]] = field(default_factory=dict)

    async def who(self, key: str) -> User:
        """The user that ``key`` acts for.

        Raises:
            NotAllowed: nobody.
        """
        digest = hashlib.sha256(key.encode()).digest()
        known = self._found.get(digest)
        if known is None or time.monotonic() > known[0]:
            user = await run_in_threadpool(self.people.who, key)
            now = time.monotonic()
            self._found = {k: v for k, v in self._found.items() if now <= v[0]}
            self._found[digest] = known = (now + self.seconds, user)
        return known[1]


@dataclass(frozen=True)
class Context:
    """The gateway's parts."""

    settings: Settings
    store: JobStore
    artifacts: ArtifactStore
    hints: HintSender
    catalogue: Catalogue
    keys: Keys
    metrics: Metrics
    revision: str


async def _context(request: Request) -> Context:  # not a plain function: each of those costs a thread's turn
    return cast(Context, request.app.state.context)


Ctx = Annotated[Context, Depends(_context)]


async def _me(request: Request, context: Ctx) -> User:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAllowed("an API key is needed: send `Authorization: Bearer KEY`; `perrin up` writes one to run.json")
    return await context.keys.who(key.strip())


Me = Annotated[User, Depends(_me)]
