"""What the fork server imports before engine processes are forked from it: all of an engine, and the runtimes of this
worker's modalities.

This module is imported for its effect, in that process and nowhere else. A plugin that cannot be imported is left to
the jobs that want it, which then say why.
"""

from __future__ import annotations

import contextlib
import os
import signal

from perrin import plugins
from perrin_orchestration import engine_process  # noqa: F401 - for its effect, as all here

__all__: list[str] = []

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a stop that is sent to the whole group is the supervisor's to carry out

for _name, _face in plugins.modalities().items():
    if any(pool == _name or pool.startswith(_name + "-") for pool in os.environ.get("PERRIN_POOLS", "").split(",")):
        with contextlib.suppress(Exception):
            plugins.runtime(_face)
