"""A plain Celery task that does nothing but note the time: what `bench_latency.py` compares with."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery

__all__ = ["app", "make"]


def make(environment: Mapping[str, str]) -> Any:
    """Celery as it comes, on the broker of the platform that ``environment`` describes, with its own queue."""
    made = Celery("plain", broker=environment.get("PERRIN_BROKER_URL", "filesystem://"), set_as_current=False)
    made.conf.update(task_acks_late=False, task_ignore_result=True, task_default_queue="plain")
    made.conf.broker_connection_retry_on_startup = True
    if made.conf.broker_url == "filesystem://":
        folder = Path(environment["PERRIN_HOME"]) / "plain-broker"
        folder.mkdir(parents=True, exist_ok=True)
        queue, control = str(folder / "queue"), str(folder / "control")
        Path(queue).mkdir(exist_ok=True)
        Path(control).mkdir(exist_ok=True)
        options = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": control}
        made.conf.broker_transport_options = options | {"polling_interval": 0.05}
    made.task(name="note")(note)
    return made


def note(number: int) -> None:
    """Write down when this ran."""
    with Path(os.environ["PERRIN_BENCH_NOTE"]).open("a") as stream:
        stream.write(f"{time.monotonic()} {number}\n")


app = make(os.environ) if "PERRIN_BENCH_NOTE" in os.environ else None
"""For ``celery -A plain worker``."""
