"""A job's events as they happen (server-sent events), from any number on, so that a reconnect misses none.

The store is asked rather than listened to: events come from other processes, on other machines too, and whoever comes
back after a gateway's death asks for what came after the last event seen.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
from anyio.to_thread import run_sync

from perrin.errors import PerrinError
from perrin_orchestration.gateway.records import event_record
from perrin_orchestration.store import Event, JobStore

__all__ = ["stream_events"]

PAUSE = 0.15
"""Seconds between two looks into the store."""

HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent: proof of life, for proxies too."""

PAGE = 500


async def stream_events(store: JobStore, job_id: str, after: int) -> AsyncIterator[str]:
    """The events of a job after number ``after``, as text of the stream; ends after the job's last event."""
    yield "retry: 1000\n\n"
    spoke, known = time.monotonic(), False
    while True:
        try:
            events = await run_sync(store.events, job_id, after, PAGE)
            if not events and not known and (await run_sync(store.get, job_id)).state.terminal:
                events = await run_sync(store.events, job_id, after, PAGE)  # it may have ended in between
                if not events:
                    return
        except PerrinError:  # the database is away: the client comes back, and misses nothing
            return
        known = True  # that it has not ended, so the event of its end is still to come
        for event in events:
            after = event.number
            yield _text(event)
            if event.state.terminal:
                return
        if events:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > HEARTBEAT:
            spoke = time.monotonic()
            yield ": still here\n\n"
        if len(events) < PAGE:
            await anyio.sleep(PAUSE)


def _text(event: Event) -> str:
    return f"id: {event.number}\nevent: {event.kind}\ndata: {event_record(event).model_dump_json()}\n\n"
