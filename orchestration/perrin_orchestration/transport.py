"""Celery, carrying hints: "there may be work in this pool", and nothing else.

A hint that is lost, doubled, late or out of order does no harm, because the store decides what there is to do. So the
transport is as simple as it can be: JSON only, no results, no retries, acknowledged on arrival, expiring in seconds,
and sending one never delays or fails a submit. A pool where a hint waits to be heard gets no second one, so that on any
broker a queue holds one message, and a few where several send at the same moment, however long nobody listens.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import structlog
from celery import Celery
from kombu import Exchange, Queue

from perrin.settings import Settings
from perrin_orchestration import folder_broker

__all__ = ["HintReceiver", "HintSender", "make_app"]

HINT = "perrin.hint"
EXPIRES = 10.0
"""Seconds after which a hint is stale; a reconciler has sent another by then."""

_log = structlog.get_logger("perrin.transport")


class Hints(Protocol):
    """The outbox, as far as sending needs it."""

    def pending_hints(self) -> dict[str, int]:
        """Pools to hint, each with the last outbox row."""
        ...

    def hinted(self, pool: str, last: int) -> None:
        """The hint went out."""
        ...


def make_app(settings: Settings) -> Celery:
    """The Celery application for ``settings.broker_url``; a folder under home without one."""
    for name in ("celery", "kombu", "kombu.connection"):  # a line for every hint is more than anybody reads
        logging.getLogger(name).setLevel(logging.ERROR if "." in name else logging.WARNING)
    app = Celery("perrin", broker=settings.broker_url or "filesystem://", set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2,
        result_backend="disabled://",
        result_serializer="json",
        task_acks_late=False,
        task_default_delivery_mode="transient",
        task_default_queue="perrin",
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        task_store_errors_even_if_ignored=False,
        worker_hijack_root_logger=False,
        # No limit: Celery sends an acknowledgement only with its loop's next turn, up to 10 s later on RabbitMQ, which
        # holds the next hint back until then. Hints wait for nothing here, so none is held that another could take.
        worker_prefetch_multiplier=0,
        worker_redirect_stdouts=False,
    )
    if app.conf.broker_url.startswith("filesystem://"):
        folder_broker.install()
        folder = settings.home_path / "broker"
        app.conf.broker_transport_options = {
            "data_folder_in": str(folder / "queue"),  # "in" and "out" are seen from the two ends of one queue
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        }
        _make_folders(app)
    elif app.conf.broker_url.startswith(("redis://", "rediss://")):
        app.conf.broker_transport_options = {"visibility_timeout": 2 * EXPIRES}  # of what a killed worker had taken
    return app


def _make_folders(app: Celery) -> None:
    """The folders of a ``filesystem://`` broker, which somebody may have deleted."""
    for name, path in app.conf.broker_transport_options.items():
        if name.endswith(("_in", "_folder")):
            Path(path).mkdir(parents=True, exist_ok=True)


def queue_name(pool: str) -> str:
    """The Celery queue of a pool."""
    return f"perrin.{pool}"


class HintSender:
    """Sends the outbox's hints from a thread of its own, one message a pool however many jobs it stands for.

    Args:
        app: the Celery application.
        hints: the outbox.
        pause: least seconds between two rounds; what arrives meanwhile goes into one message.
    """

    def __init__(self, app: Celery, hints: Hints, pause: float = 0.02) -> None:
        self._app, self._hints, self._pause = app, hints, pause
        self._wake, self._stop = threading.Event(), threading.Event()
        self._quiet = False
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def stop(self) -> None:
        """Stop within a second or two; what was not sent stays in the outbox."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=2)

    def send(self, pool: str) -> bool:
        """Send one hint now, unless one waits already; whether the broker has it. Never raises."""
        name = queue_name(pool)
        try:
            with self._app.producer_or_acquire() as producer:
                if producer.channel.queue_declare(queue=name, durable=True, auto_delete=False).message_count == 0:
                    hint = {"args": (pool,), "queue": name, "expires": EXPIRES, "retry": False}
                    self._app.send_task(HINT, producer=producer, **hint)
        except Exception as error:  # a broker may fail in any way it likes: the store has the job
            if not self._quiet:
                _log.warning("hint not sent", pool=pool, error=f"{type(error).__name__}: {error}")
            self._quiet = True
            with contextlib.suppress(OSError):
                _make_folders(self._app)
            return False
        self._quiet = False
        return True

    def flush(self) -> None:
        """Send every hint of the outbox once."""
        for pool, last in self._hints.pending_hints().items():
            if self.send(pool):
                self._hints.hinted(pool, last)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(timeout=5)
            self._wake.clear()
            try:
                self.flush()
            except Exception as error:  # the thread must outlive whatever the database does
                _log.warning("outbox not read", error=f"{type(error).__name__}: {error}")
            self._stop.wait(self._pause)


class HintReceiver:
    """A Celery worker in a thread, whose one task raises a flag.

    A consumer may stop without an error: its connection is half open, or somebody has told it to cancel a queue. So the
    worker also listens to a queue of its own, and `call` sends a message there.

    Args:
        app: the Celery application.
        name: this worker's node name.
        pools: pools to hear of.
        on_hint: called in the thread with the pool's name; must return at once.
        on_shutdown: called in the thread when somebody sent Celery's ``shutdown``; this listens on until `stop`.
    """

    def __init__(
        self,
        app: Celery,
        name: str,
        pools: Iterable[str],
        on_hint: Callable[[str], None],
        on_shutdown: Callable[[], None] | None = None,
    ) -> None:
        self._app, self._name = app, name
        self._queues = [queue_name(pool) for pool in pools]
        self._own = Queue(f"perrin.worker.{name}", Exchange(""), f"perrin.worker.{name}", durable=False, expires=60.0)
        self._on_hint, self._on_shutdown = on_hint, on_shutdown
        self._generation = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread()
        self.unheard = 0
        """Calls that the broker took and that did not arrive here."""

    def start(self) -> None:
        """Begin to listen."""

        def hint(pool: str) -> None:
            self.unheard = 0
            if pool:
                self._on_hint(pool)

        self._app.task(name=HINT, ignore_result=True, shared=False)(hint)
        self._listen()

    def call(self) -> None:
        """Send a message that only this worker hears, to see that it hears. Never raises."""
        with contextlib.suppress(Exception):  # a broker that takes nothing says nothing of the consumer
            self._app.send_task(HINT, args=("",), queue=self._own, expires=EXPIRES, retry=False)
            self.unheard += 1

    def restart(self) -> None:
        """Listen anew, in another thread if the present one does not end within some seconds."""
        from celery.worker import state

        self._generation += 1
        state.should_stop = 0
        self.join()
        self.unheard = 0
        self._listen()

    def _listen(self) -> None:
        self._generation += 1
        self._thread = threading.Thread(target=self._run, args=(self._generation,), name="celery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, within the two seconds that Celery waits for a message."""
        from celery.worker import state

        self._stopping.set()
        state.should_stop = 0

    def join(self) -> None:
        """Wait until it has stopped; after a while it is left behind, being a daemon thread."""
        self._thread.join(timeout=3.0)

    def _run(self, generation: int) -> None:
        """Celery installs no signal handlers off the main thread, and starts again here if it ever gives up."""
        from celery.worker import state

        self._app.set_current()  # for this thread: it is where Celery looks for the task
        while not self._stopping.is_set() and generation == self._generation:
            state.should_stop = None
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    worker = self._worker()
                    worker.start()
                asked = worker.exitcode == 0 and not self._stopping.is_set() and generation == self._generation
                if asked and self._on_shutdown is not None:
                    self._on_shutdown()
            except Exception as error:
                _log.error("celery stopped", error=f"{type(error).__name__}: {error}")
            self._stopping.wait(1.0)

    def _worker(self) -> Any:
        _make_folders(self._app)
        self._app.amqp.queues.add(self._own)
        return self._app.WorkController(
            app=self._app,
            hostname=self._name,
            concurrency=1,
            pool="solo",
            queues=[*self._queues, self._own.name],
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
        )
