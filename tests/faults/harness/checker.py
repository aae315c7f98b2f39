"""The judge. Knows the promises and nothing of how they are kept.

P1 every acknowledged submit is there, once. P2 every job reaches exactly one terminal state, and nothing happens to it
after that. P3 at most one committed result a job, of the bytes that an undisturbed run makes. P4 nothing is written
under an older epoch than what stands there, nor by two owners under one. P5 a job whose holder was killed is held
again, or has ended, within its lease, the reconciler's period and a claim. And nobody is blamed for what they did not
do: a job is quarantined only if the process that ran it was really ended three times.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from harness.history import Call, Fault, Held, History, canonical

__all__ = ["CLAIM_SECONDS", "CRASHES_ALLOWED", "RECONCILER_SECONDS", "SLACK_SECONDS", "Verdict", "judge"]

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "quarantined"})

RECONCILER_SECONDS = 2.0
"""How often a supervisor looks for leases that ran out."""

CLAIM_SECONDS = 0.5
"""How long an engine process with room to spare waits before it looks for work without a hint."""

SLACK_SECONDS = 3.0
"""For a machine with fewer cores than processes, and the second in which a lapsed lease is looked at."""

CRASHES_ALLOWED = 3


@dataclass
class Verdict:
    """What was found wrong, one line each; and what was measured.

    Attributes:
        lost: acknowledged submits that are not there as they were asked for, and jobs that never ended.
        duplicated: two jobs of one key, two ends, two results.
        stale: writes of an owner whose lease was over.
        wrong: artifacts of other bytes; cancels and ends that contradict each other; gaps in the events.
        unjust: jobs that were quarantined though their process did not die that often.
        slow: recoveries that took longer than promised.
        recoveries: seconds from each kill to the next holder, or the end.
    """

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unjust: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    submitted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """No promise was broken."""
        return not (self.lost or self.duplicated or self.stale or self.wrong or self.unjust or self.slow)

    @property
    def worst(self) -> float:
        """Seconds of the slowest recovery."""
        return max(self.recoveries, default=0.0)

    @property
    def median(self) -> float:
        """Seconds of the median recovery."""
        return median(self.recoveries) if self.recoveries else 0.0

    def __str__(self) -> str:
        found = [
            f"{name}: {line}"
            for name in ("lost", "duplicated", "stale", "wrong", "unjust", "slow")
            for line in getattr(self, name)
        ]
        return "\n".join(found[:40]) or "every promise was kept"


def judge(history: History) -> Verdict:
    """Hold what was promised against what was seen."""
    verdict = Verdict()
    jobs = {str(row["id"]): row for row in history.end.jobs}
    events: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(history.end.events, key=lambda row: (row["job_id"], row["number"])):
        events[row["job_id"]].append(row)
    verdict.faults.update(fault.kind for fault in history.faults)
    verdict.states.update(row["state"] for row in jobs.values())
    _submits(history.calls, jobs, verdict)
    for job_id, row in jobs.items():
        _ends(row, events[job_id], verdict)
        _epochs(job_id, events[job_id], verdict)
    _results(history, jobs, verdict)
    _cancels(history.calls, jobs, verdict)
    _blame(history, events, jobs, verdict)
    if not history.clocks_moved:
        _recoveries(history, events, verdict)
    return verdict


def _submits(calls: Iterable[Call], jobs: Mapping[str, Mapping[str, Any]], verdict: Verdict) -> None:
    """P1."""
    by_key: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in jobs.values():
        if row["idempotency_key"]:
            by_key[row["idempotency_key"]].append(row)
    answers: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.what == "submit":
            answers[call.key].append(call)
    verdict.submitted = len(answers)
    for key, told in answers.items():
        found = by_key.get(key, [])
        if len(found) > 1:
            verdict.duplicated.append(f"key {key} made {len(found)} jobs")
        good = [call for call in told if call.answer == "acknowledged"]
        if len({call.job for call in good}) > 1:
            verdict.duplicated.append(f"key {key} was acknowledged as {sorted({call.job for call in good})}")
        for call in good:
            row = jobs.get(call.job)
            if row is None:
                verdict.lost.append(f"job {call.job} was acknowledged and is not there (key {key})")
            elif row["idempotency_key"] != key or not _asked(call.asked, row["parameters"]):
                verdict.lost.append(f"job {call.job} is not what was asked for under key {key}")
        if found and all(call.answer == "refused" for call in told):
            verdict.wrong.append(f"key {key} was refused, and yet made job {found[0]['id']}")


def _asked(asked: str, stored: Mapping[str, Any]) -> bool:
    return all(name in stored and stored[name] == value for name, value in json.loads(asked or "{}").items())


def _ends(row: Mapping[str, Any], events: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """P2."""
    job_id, ends = row["id"], [event for event in events if event["state"] in TERMINAL]
    if row["state"] not in TERMINAL:
        verdict.lost.append(f"job {job_id} never ended: it is {row['state']}")
    if len(ends) > 1:
        verdict.duplicated.append(f"job {job_id} ended {len(ends)} times: {[event['state'] for event in ends]}")
    if row["state"] in TERMINAL and [event["state"] for event in ends[:1]] != [row["state"]]:
        verdict.wrong.append(f"job {job_id} is {row['state']}, its events say {[event['state'] for event in ends]}")
    if ends and events[-1] is not ends[-1]:
        verdict.duplicated.append(f"job {job_id} has events after its end")
    if row["state"] in TERMINAL and row["owner"] is not None:
        verdict.wrong.append(f"job {job_id} has ended and is held by {row['owner']}")
    if [event["number"] for event in events] != list(range(1, len(events) + 1)):
        verdict.wrong.append(f"job {job_id} has gaps in its events")


def _epochs(job_id: str, events: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """P4."""
    highest, owners = 0, defaultdict(set)
    for event in events:
        if event["epoch"] < highest:
            verdict.stale.append(f"job {job_id}, event {event['number']}: epoch {event['epoch']} after {highest}")
        highest = max(highest, event["epoch"])
        if event["owner"] is not None:
            owners[event["epoch"]].add(event["owner"])
    for epoch, names in owners.items():
        if len(names) > 1:
            verdict.stale.append(f"job {job_id}, epoch {epoch}: written by {len(names)} owners")


def _results(history: History, jobs: Mapping[str, Mapping[str, Any]], verdict: Verdict) -> None:
    """P3."""
    files: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for artifact in history.end.artifacts:
        files[artifact["job_id"]].append(artifact)
        if history.end.bytes.get(artifact["id"]) != artifact["sha256"]:
            verdict.wrong.append(f"artifact {artifact['id']} of job {artifact['job_id']} is not the bytes committed")
    for job_id in files.keys() - jobs.keys():
        verdict.wrong.append(f"there are artifacts of job {job_id}, which is not there")
    for job_id, row in jobs.items():
        made = sorted(files.get(job_id, []), key=lambda artifact: artifact["number"])
        if row["state"] != "succeeded":
            if made:
                verdict.duplicated.append(f"job {job_id} is {row['state']} and has {len(made)} artifacts")
            continue
        if [artifact["number"] for artifact in made] != list(range(len(made))) or not made:
            verdict.duplicated.append(f"job {job_id} has artifacts {[artifact['number'] for artifact in made]}")
        wanted = history.oracle.get(canonical(row["parameters"]))
        if wanted is not None and tuple(artifact["sha256"] for artifact in made) != wanted:
            verdict.wrong.append(f"job {job_id} made other bytes than an undisturbed run")


def _cancels(calls: Iterable[Call], jobs: Mapping[str, Mapping[str, Any]], verdict: Verdict) -> None:
    for call in calls:
        row = jobs.get(call.key)
        if call.what != "cancel" or row is None:
            continue
        if call.answer == "acknowledged" and row["state"] == "succeeded":
            verdict.wrong.append(f"job {call.key} succeeded after its cancel was acknowledged")
    asked = {call.key for call in calls if call.what == "cancel" and call.answer != "refused"}
    for job_id, row in jobs.items():
        if row["state"] == "cancelled" and job_id not in asked:
            verdict.wrong.append(f"job {job_id} was cancelled by nobody")


def _blame(
    history: History,
    events: Mapping[str, Sequence[Mapping[str, Any]]],
    jobs: Mapping[str, Mapping[str, Any]],
    verdict: Verdict,
) -> None:
    """A job's process ended with every fault that struck what it was in; and where it was claimed just after its
    supervisor was killed, before its engine had seen that.
    """
    hits: Counter[str] = Counter(held.job for fault in history.faults for held in fault.held)
    leased = {(job, row["epoch"]): row for job, own in events.items() for row in own if row["state"] == "leased"}
    killed: dict[str, float] = {}
    for fault in history.faults:
        if fault.kind == "kill supervisor":
            found = (leased.get((held.job, held.epoch), {}).get("worker") for held in fault.held)
            killed |= {worker: fault.at for worker in found if worker}
    hits.update(job for (job, _), row in leased.items() if row["at"] > killed.get(row.get("worker") or "", math.inf))
    for job_id, row in jobs.items():
        if row["state"] == "quarantined" and job_id not in history.harmful and hits[job_id] < CRASHES_ALLOWED:
            verdict.unjust.append(f"job {job_id} was quarantined; its process was ended {hits[job_id]} times")


def _recoveries(history: History, events: Mapping[str, Sequence[Mapping[str, Any]]], verdict: Verdict) -> None:
    """P5."""
    outages = [(fault.at, fault.until) for fault in history.faults if fault.until > fault.at]
    kills = [fault for fault in history.faults if fault.until == fault.at]
    for fault in kills:
        for held in fault.held:
            after = _next_hold(held, events.get(held.job, ()))
            if after is None or after <= fault.at:
                continue  # it never came back, which P2 tells; or it had left the victim's hands before
            seconds = after - fault.at
            bound = max(0.0, held.lease_until - fault.at) + RECONCILER_SECONDS + CLAIM_SECONDS + SLACK_SECONDS
            bound += _blocked(fault, after, outages, kills, history.restart_seconds)
            verdict.recoveries.append(seconds)
            if seconds > bound:
                verdict.slow.append(
                    f"job {held.job}: {seconds:.1f} s after {fault.kind} of {fault.victim}, not {bound:.1f}"
                )


def _next_hold(held: Held, events: Sequence[Mapping[str, Any]]) -> float | None:
    for event in events:
        if event["epoch"] > held.epoch or (event["epoch"] == held.epoch and event["state"] in TERMINAL):
            return float(event["at"])
    return None


def _blocked(
    fault: Fault, after: float, outages: Sequence[tuple[float, float]], kills: Sequence[Fault], restart: float
) -> float:
    """Seconds of that time in which nobody could have taken the job: something was away, or was just starting."""
    away = sum(
        max(0.0, min(until, after) - max(at, fault.at)) + 2.0
        for at, until in outages
        if at < after and until > fault.at
    )
    starting = (
        restart if any(fault.at - restart <= kill.at <= after for kill in kills if kill.kind != "kill gateway") else 0.0
    )
    return away + starting
