"""A gateway over real HTTP, shared by a module's tests, and two people who talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import Served, serve

from perrin.settings import Settings


@pytest.fixture(scope="module")
def served(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(Settings(home=tmp_path_factory.mktemp("home"), min_free_mb=0))


@pytest.fixture
def ann(served: Served) -> Iterator[httpx.Client]:
    with served.client("ann") as client:
        yield client


@pytest.fixture
def bob(served: Served) -> Iterator[httpx.Client]:
    with served.client("bob") as client:
        yield client


@pytest.fixture(autouse=True)
def empty_queue(served: Served) -> Iterator[None]:
    """What a test leaves in the queue is ended after it."""
    yield
    while jobs := served.store.claim("cleaner", "w", ["dots"], 10, 30.0):
        for job in jobs:
            served.store.fail(job.lease, "invalid", "left over")
