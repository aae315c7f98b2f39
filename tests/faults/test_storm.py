"""Clients at work, and kills by chance as fast as there are victims. `make faults` adds the servers' faults."""

from __future__ import annotations

import random

from harness.checker import judge
from harness.clients import Clients
from harness.cluster import Cluster
from harness.storm import storm


def test_a_short_storm(judged: Cluster, rng: random.Random) -> None:
    clients = Clients(judged, rng)
    clients.start()
    storm(judged, rng, kills=12, faults=0)
    clients.stop()
    assert clients.errors == []
    judged.settle()
    verdict = judge(judged.history)
    print(f"{verdict.submitted} jobs, recovery {verdict.median:.2f} s, worst {verdict.worst:.2f} s")
    assert sum(count for kind, count in verdict.faults.items() if kind.startswith("kill")) >= 12
    assert verdict.ok, str(verdict)
