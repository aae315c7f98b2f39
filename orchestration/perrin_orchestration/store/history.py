"""A job's history, read off its events: its attempts, who made them, what took how long, how each ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from perrin_orchestration.store.values import Event

__all__ = ["Attempt", "Stage", "attempts"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an attempt: ``done`` of ``total`` units when last heard of. Times are seconds since 1970."""

    name: str
    began_at: float
    ended_at: float | None
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One holding of a job.

    Attributes:
        epoch: its number.
        owner: the engine process.
        worker: the worker.
        claimed_at, started_at, ended_at: seconds since 1970; None before that.
        state: what the job became at its end; None while it goes on.
        error_kind, message: why, if it was not a success.
        stages: in their order.
        gpu_seconds: seconds of a device that it has taken.
        joules: energy that it has taken; None if the device does not tell.
    """

    epoch: int
    owner: str
    worker: str | None
    claimed_at: float
    started_at: float | None = None
    ended_at: float | None = None
    state: str | None = None
    error_kind: str | None = None
    message: str = ""
    stages: tuple[Stage, ...] = field(default=())
    gpu_seconds: float = 0.0
    joules: float | None = None


def attempts(events: Iterable[Event]) -> tuple[Attempt, ...]:
    """The attempts that ``events``, all of one job and in their order, tell of."""
    found: list[Attempt] = []
    for event in events:
        if event.owner is not None and (not found or found[-1].epoch != event.epoch):
            found.append(Attempt(event.epoch, event.owner, event.worker, event.at))
        if not found or found[-1].ended_at is not None:
            continue  # before the first attempt, or between two
        last = found[-1]
        if event.owner is None:
            stages = _end(last.stages, event.at)
            end = replace(last, ended_at=event.at, state=event.state.value, stages=stages)
            found[-1] = replace(end, error_kind=event.error_kind, message=event.message)
        elif event.kind == "state":
            found[-1] = replace(last, started_at=event.at) if event.state == "running" else last
        elif event.stage is not None:
            found[-1] = replace(last, stages=_stage(last.stages, event))
    return tuple(found)


def _stage(stages: tuple[Stage, ...], event: Event) -> tuple[Stage, ...]:
    name = event.stage or ""
    if stages and stages[-1].name == name:
        return (*stages[:-1], replace(stages[-1], done=event.done, total=event.total))
    return (*_end(stages, event.at), Stage(name, event.at, None, event.done, event.total))


def _end(stages: tuple[Stage, ...], at: float) -> tuple[Stage, ...]:
    return (*stages[:-1], replace(stages[-1], ended_at=at)) if stages else ()
