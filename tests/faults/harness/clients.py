"""Clients: they submit, repeat what was not answered, cancel now and then, and write down every answer."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from harness.cluster import Cluster
from harness.history import Call, canonical
from harness.observer import Holding

__all__ = ["MENU", "Clients", "cancel", "learn", "meet", "submit"]

MENU: tuple[Mapping[str, Any], ...] = (
    {"seed": 11, "steps": 10, "delay": 0.05},
    {"seed": 12, "steps": 24, "delay": 0.05, "count": 2},
    {"seed": 13, "steps": 8, "delay": 0.12},
    {"seed": 14, "steps": 30, "delay": 0.03, "count": 6},
    {"seed": 15, "steps": 4, "delay": 0.3, "slow": "write"},
    {"seed": 16, "steps": 4, "delay": 0.3, "slow": "encode"},
    {"seed": 17, "steps": 5, "delay": 0.01, "count": 24},
    {"seed": 18, "steps": 16, "delay": 0.06, "radius": 9},
)
"""What the clients ask for. Each takes about a second, and its bytes are known."""

FINISHED = frozenset({"succeeded", "failed", "cancelled", "quarantined"})


def submit(cluster: Cluster, parameters: Mapping[str, Any], *, key: str = "", tries: int = 600, **more: Any) -> str:
    """Submit a job, and go on sending it under its key until there is an answer; its id, or nothing if refused."""
    key = key or uuid.uuid4().hex
    body = {"modality": "dots", "parameters": dict(parameters)} | more
    for _ in range(tries):
        began, answer, job, note = time.time(), "unknown", "", ""
        try:
            got = cluster.http.post("/jobs", json=body, headers={"Idempotency-Key": key})
            if got.status_code in (200, 201):
                answer, job = "acknowledged", str(got.json()["id"])
            elif got.status_code < 500 or got.status_code == 507:
                answer, note = "refused", got.text[:300]
            else:
                note = got.text[:300]
        except httpx.HTTPError as error:
            note = repr(error)
        cluster.history.called(Call(began, time.time(), "submit", key, answer, job, canonical(parameters), note))
        if answer != "unknown":
            return job
        time.sleep(0.1)
    raise AssertionError(f"key {key} was not answered in {tries} tries: {note}")


def cancel(cluster: Cluster, job_id: str) -> str:
    """Ask once for a job to be stopped; the kind of the answer."""
    began, answer, note = time.time(), "unknown", ""
    try:
        got = cluster.http.post(f"/jobs/{job_id}/cancel")
        answer = "acknowledged" if got.status_code == 200 else "refused" if got.status_code < 500 else "unknown"
        note = got.text[:200]
    except httpx.HTTPError as error:
        note = repr(error)
    cluster.history.called(Call(began, time.time(), "cancel", job_id, answer, job_id, note=note))
    return answer


def meet(cluster: Cluster, parameters: Mapping[str, Any], where: Callable[[Holding], bool] = lambda _: True) -> Holding:
    """Submit a job, and wait until somebody holds it and ``where`` is true of it.

    A job's moments are short, and a busy machine may let one pass before anybody looks: then it is the turn of another.
    """
    for _ in range(50):
        found = cluster.holding(submit(cluster, parameters), where)
        if found is not None:
            return found
    raise AssertionError("none of fifty jobs was met at that moment")


def learn(cluster: Cluster, menu: Sequence[Mapping[str, Any]] = MENU) -> None:
    """Before anything is broken, run everything on the menu once: those are the right bytes.

    On a busy machine a lease may run out by itself; only a job that nothing disturbed tells what is right.
    """
    ids = [submit(cluster, parameters) for parameters in menu]
    for job_id, parameters in zip(ids, menu, strict=True):
        while cluster.wait(job_id, "succeeded")["attempts"] > 1:
            job_id = submit(cluster, parameters)
        found = cluster.get(f"/jobs/{job_id}")
        hashes = tuple(artifact["sha256"] for artifact in found["artifacts"])
        cluster.history.oracle[canonical(found["parameters"])] = hashes


class Clients:
    """Threads that keep about ``target`` jobs in the cluster until they are told to stop."""

    def __init__(self, cluster: Cluster, rng: random.Random, *, target: int = 6, threads: int = 2) -> None:
        self._cluster, self._target = cluster, target
        self._stop = threading.Event()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=[random.Random(rng.getrandbits(64))], daemon=True)
            for _ in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what was begun; `errors` holds what a client could not cope with."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _run(self, rng: random.Random) -> None:
        mine: list[str] = []
        try:
            while not self._stop.is_set():
                if self._cluster.observer.live() >= self._target:
                    self._stop.wait(0.05)
                    continue
                key = uuid.uuid4().hex
                parameters = rng.choice(MENU)
                mine.append(submit(self._cluster, parameters, key=key))
                if rng.random() < 0.1:  # a client that did not see its answer
                    submit(self._cluster, parameters, key=key)
                if rng.random() < 0.1:
                    self._stop.wait(rng.random())
                    cancel(self._cluster, rng.choice(mine[-4:]))
        except BaseException as error:
            self.errors.append(error)
