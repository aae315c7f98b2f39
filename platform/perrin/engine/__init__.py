"""Runs many requests on one device, step by step: continuous batching.

`Engine` is synchronous and has no thread inside: whoever drives it calls `Engine.tick` until nothing is left, and
between two ticks may admit, cancel, pause, resume or save any request. `Driver` does so in a thread, for callers in
several.

    batch       rows of unlike requests in one network call        cost      how many samples a call should have
    sampler     one tick's rows: lanes, turns, events              memory    models in memory, working memory
    flight      a request, from encoding to its files              fair      the waiting line, and whose turn it is
"""

from __future__ import annotations

from perrin.engine.driver import Driver, Ticket
from perrin.engine.engine import Engine
from perrin.engine.events import Doing, Event, Failed, File, Finished, Loaded, Preview, Progress, Request, Unloaded

__all__ = [
    "Doing",
    "Driver",
    "Engine",
    "Event",
    "Failed",
    "File",
    "Finished",
    "Loaded",
    "Preview",
    "Progress",
    "Request",
    "Ticket",
    "Unloaded",
]
