"""Many faults by chance: kills as fast as there are victims, and server faults in between."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from harness.breaking import kill_engine, kill_gateway, kill_worker, server_faults, victim
from harness.checker import CRASHES_ALLOWED
from harness.cluster import Cluster
from harness.observer import Holding

__all__ = ["storm"]

MOMENTS: dict[str, Callable[[Holding], bool]] = {
    "kill engine": lambda _: True,
    "kill loading": lambda found: found.stage in (None, "load", "encode"),
    "kill sampling": lambda found: found.stage == "step",
    "kill writing": lambda found: found.stage in ("decode", "write"),
    "kill committing": lambda found: found.state == "committing",
}
WEIGHTS = {"kill engine": 5, "kill loading": 2, "kill sampling": 2, "kill writing": 2, "kill committing": 3}
PATIENCE_SECONDS = 1.5

CRUELTY = 0.1
"""How often a kill may be the third that hits a job, which is then quarantined. Else few jobs would ever succeed."""


def storm(
    cluster: Cluster,
    rng: random.Random,
    kills: int,
    faults: int,
    *,
    tell: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Break things.

    Args:
        cluster: what to break; clients are at work in it.
        rng: decides what, when and whom.
        kills: how many processes to kill.
        faults: how many of each fault of a server.
        tell: told of everything that was broken, by name.
        stop: asked whether to stop early.
    """
    breakers = server_faults(cluster.backend.name)
    schedule = ["kill"] * kills + [name for name in breakers for _ in range(faults)]
    rng.shuffle(schedule)
    done: Counter[str] = Counter()
    for name in schedule:
        if stop():
            return
        if name == "kill":
            kind = _kill(cluster, rng, stop)
        else:
            breakers[name](cluster, rng)
            kind = name
        if kind:
            done[kind] += 1
            tell(kind)


def _kill(cluster: Cluster, rng: random.Random, stop: Callable[[], bool]) -> str:
    """Kill one process that holds a job, as soon as there is one at the chosen moment of its life."""
    draw = rng.random()
    if draw < 0.03:
        kill_gateway(cluster)
        return "kill gateway"
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    cruel = rng.random() < CRUELTY
    end = time.monotonic() + PATIENCE_SECONDS
    time.sleep(rng.random() * 0.1)
    while not stop():
        where = MOMENTS[name] if time.monotonic() < end else MOMENTS["kill engine"]
        found = victim(cluster, rng, where, 99 if cruel else CRASHES_ALLOWED - 1)
        if found is not None:
            if where is MOMENTS["kill engine"]:
                name = "kill engine"
            if draw < 0.15:
                kill_worker(cluster, found[0])
                return "kill supervisor"
            if kill_engine(cluster, found[0], name) is not None:
                return name
        time.sleep(0.005)
    return ""
