"""What every request of the gateway needs, made once; and whom a request comes from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from perrin.errors import NotAllowed
from perrin.models import ModelCard, find, models
from perrin.settings import Settings
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.gateway.metrics import Metrics
from perrin_orchestration.store import JobStore, User
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


@dataclass(frozen=True)
class Context:
    """The gateway's parts."""

    settings: Settings
    store: JobStore
    artifacts: ArtifactStore
    hints: HintSender
    catalogue: Catalogue
    metrics: Metrics
    revision: str


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Ctx = Annotated[Context, Depends(_context)]


def _me(request: Request, context: Ctx) -> User:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAllowed("an API key is needed: send `Authorization: Bearer KEY`; `perrin up` writes one to run.json")
    return context.store.people.who(key.strip())


Me = Annotated[User, Depends(_me)]
