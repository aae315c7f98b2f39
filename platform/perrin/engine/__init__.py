"""Runs requests on one device, one small step at a time.

`Engine` is synchronous and has no thread inside: whoever drives it calls `Engine.tick` until nothing is left, and
between two ticks may admit, cancel or save any request.
"""

from __future__ import annotations

from perrin.engine.engine import Engine
from perrin.engine.events import Event, Failed, File, Finished, Preview, Progress, Request

__all__ = ["Engine", "Event", "Failed", "File", "Finished", "Preview", "Progress", "Request"]
