"""One cluster a backend for all tests of this folder. Each leaves it as it was, and the judge looks at all of it.

The tests mostly wait: for leases to end, for jobs that are slow on purpose. So `make test` runs those of two backends
side by side, each in a process of its own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guard import Guard
from harness.checker import judge
from harness.clients import learn
from harness.cluster import BACKENDS, Backend, Cluster
from outside import install
from xdist.scheduler import LoadScopeScheduling

SEED = int(os.environ.get("PERRIN_FAULTS_SEED", "20260101"))


class ByBackend(LoadScopeScheduling):
    """All tests on one backend go to one process; those on none wherever there is room."""

    def _split_scope(self, nodeid: str) -> str:
        parameters = nodeid.partition("[")[2].rstrip("]").split("-")
        return next((name for name in parameters if name in BACKENDS), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByBackend:
    return ByBackend(config, log)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="session")
def guard() -> Iterator[Guard]:
    with Guard() as made:
        yield made


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest, guard: Guard) -> Iterator[Backend]:
    made = Backend(request.param, guard)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def cluster(backend: Backend, guard: Guard, plugin: Path) -> Iterator[Cluster]:
    with Cluster(guard, backend, plugin, environment={"PERRIN_DOTS_LOAD": "0.1"}) as made:
        learn(made)
        yield made


@pytest.fixture
def rng(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> random.Random:
    """Chance, the same with the same seed; pytest prints the seed with a failure."""
    seed = f"{SEED} {request.node.name}"
    print(f"PERRIN_FAULTS_SEED={SEED} makes the same choices again")
    return random.Random(seed)


@pytest.fixture
def judged(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; after the test every worker is up, every job has ended, and every promise was kept."""
    cluster.ready()
    yield cluster
    cluster.settle()
    verdict = judge(cluster.history)
    assert verdict.ok, str(verdict)
