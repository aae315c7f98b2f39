"""Every broker that carries hints, each a real one: a folder, a private Redis, a private RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from guard import Guard
from platforms import vanish
from servers import RabbitMQ, Redis

from perrin.settings import Settings

SERVERS = {"redis": Redis, "rabbitmq": RabbitMQ}


@dataclass
class Carrier:
    """A broker of one kind.

    Attributes:
        home: of those that use it.
        server: its process; None for the folder.
    """

    kind: str
    home: Path
    server: Redis | RabbitMQ | None

    @property
    def settings(self) -> Settings:
        """Of a platform that uses it."""
        return Settings(home=self.home, broker_url=self.server.url if self.server else None)

    @property
    def environment(self) -> dict[str, str]:
        """The same for another process."""
        url = {"PERRIN_BROKER_URL": self.server.url} if self.server else {}
        return {"PERRIN_HOME": str(self.home)} | url

    def stop(self) -> None:
        """Take it away, with what it holds in memory or in its folder."""
        if self.server is not None:
            self.server.stop("kill")
        else:
            vanish(self.home / "broker")

    def start(self) -> None:
        """Bring it back."""
        if self.server is not None:
            self.server.start()


@pytest.fixture(scope="module", params=["filesystem", "redis", "rabbitmq"])
def carrier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    """Each broker in turn."""
    home = tmp_path_factory.mktemp("home")
    if request.param == "filesystem":
        yield Carrier(request.param, home, None)
        return
    SERVERS[request.param].needed()
    with Guard() as guard:
        server = SERVERS[request.param](guard)
        server.start()
        yield Carrier(request.param, home, server)
        server.stop("kill")
