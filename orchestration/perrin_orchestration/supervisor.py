"""One per machine: keeps leases, hears cancels, restarts what crashed, and tells the store how it is.

The supervisor's loop has the main thread, and the Celery worker a thread beside it: signals arrive here, a broker
that is away costs hints and nothing else, and engine processes are children of the thread that never ends, as Linux's
parent-death signal wants it. Nothing heavy runs in this process, so leases are renewed however busy an engine is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from perrin.errors import InvalidInput, PerrinError, StorageError
from perrin.settings import Settings
from perrin_orchestration import logs
from perrin_orchestration.artifacts import ArtifactStore
from perrin_orchestration.engine_handle import EngineHandle
from perrin_orchestration.engine_process import GRACE_SECONDS
from perrin_orchestration.retention import Housekeeper
from perrin_orchestration.store import Job, JobStore, LeaseRef, StaleLease, Worker, schema
from perrin_orchestration.telemetry import Telemetry, gpu_count
from perrin_orchestration.transport import HintReceiver, HintSender, make_app

__all__ = ["Supervisor", "devices", "run"]

CALL_SECONDS, CALLS = 10.0, 3
"""The worker calls itself through the broker this often, and listens anew after so many calls that it has not heard."""

MOMENT_SECONDS = 1.0
"""A lease must have been seen lapsed for so long, by somebody who could have written, before its job is taken back."""

_log = structlog.get_logger("perrin.supervisor")


class _Every:
    """True at most once in ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def within(self, seconds: float) -> None:
        self._next = min(self._next, time.monotonic() + seconds)


class Supervisor:
    """Watches over the engine processes of one machine.

    Args:
        settings: where the store, broker and artifacts are.
        store: the job store, with little patience: this loop must not stand still.
        devices: one engine process each.
        pools: what they may claim.
    """

    def __init__(self, settings: Settings, store: JobStore, devices: Sequence[str], pools: Sequence[str]) -> None:
        self.id = uuid.uuid4().hex
        self._settings, self._store = settings, store
        self._pools = tuple(pools)
        self._devices = tuple(devices)
        self._engines = [EngineHandle(self.id, device, self._pools, settings.lease_seconds) for device in devices]
        self._house = Housekeeper(settings)
        self._hint_in, self._hint_out = socket.socketpair()
        self._hint_out.setblocking(False)
        self._app = make_app(settings)
        self._sender = HintSender(self._app, store)
        self._receiver = HintReceiver(self._app, f"perrin@{self.id[:12]}", self._pools, self._on_hint, self.drain)
        self._telemetry = Telemetry(devices)
        self._started = time.time()
        self._drain_until: float | None = None
        self._drain_said = False
        self._flush, self._watch = _Every(0.2), _Every(0.25)
        self._reconcile, self._report = _Every(2.0), _Every(2.0)
        self._account, self._call = _Every(1.0), _Every(CALL_SECONDS)
        self._orphans: dict[LeaseRef, None] = {}
        self._mercy_until = 0.0
        self._lapsed: dict[LeaseRef, float] = {}
        self._probing = False
        self._over = threading.Event()
        beside = {"leases": self._guard_leases, "returns": self._return_leases}
        self._beside = [threading.Thread(target=work, name=name, daemon=True) for name, work in beside.items()]
        self._state = ""
        self._dead: list[tuple[str, list[str], str]] = []

    def run(self) -> None:
        """Work until told to drain, then until everything has ended in order."""
        _log.info("worker starts", worker=self.id, devices=self._devices, pools=self._pools)
        for engine in self._engines:
            engine.spawn()
        self._receiver.start()
        self._house.start()
        for thread in self._beside:
            thread.start()
        try:
            while self._drain_until is None or self._alive():
                self._listen(0.1)
                self._duty(self._lifeline)
                self._duty(self._bury)
                if self._watch.due():
                    self._duty(self._cancel)
                if self._reconcile.due():
                    self._duty(self._bring_back)
                if self._account.due():
                    self._duty(self._charge)
                if self._call.due():
                    self._duty(self._hear)
                self._duty(self._tell_how)
                self._draining()
            self._duty(self._give_back)
            self._duty(self._bury)
            self._duty(self._charge)
        finally:
            self._over.set()
            for engine in self._engines:
                engine.kill()
            self._receiver.stop()
            self._receiver.join()
            self._house.stop()
            self._duty(lambda: self._store.workers.gone(self.id))
            _log.info("worker stopped", worker=self.id)

    def drain(self) -> None:
        """Claim no more, let the engines finish or release what they have, then stop. Safe in a signal handler."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + GRACE_SECONDS + 7.0

    # --- duties -------------------------------------------------------------------------------------------------------

    def _duty(self, work: Callable[[], None]) -> None:
        """One duty failing, because the database is away or for a bug, must not end the others."""
        began = time.monotonic()
        try:
            work()
        except PerrinError as error:
            _log.warning("duty put off", duty=getattr(work, "__name__", "?"), reason=error.message)
        except Exception:
            _log.exception("duty failed", duty=getattr(work, "__name__", "?"))
        self._patience(began)

    def _patience(self, began: float) -> bool:
        """Whether the store answered in time. If not, it may have kept others from renewing their leases as well: they
        get a lease's time to do so, or to give their jobs back, before anybody takes those away and blames the jobs.
        """
        now = time.monotonic()
        if now - began > self._settings.lease_seconds / 4:
            self._mercy_until = now + self._settings.lease_seconds
        return now >= self._mercy_until

    def _listen(self, seconds: float) -> None:
        live = {engine.channel.fileno(): engine for engine in self._alive()}
        readable, _, _ = select.select([self._hint_in.fileno(), *live], [], [], seconds)
        if self._hint_in.fileno() in readable:
            self._hint_in.recv(4096)
            for engine in self._alive():
                engine.tell({"do": "claim"})
        for descriptor in readable:
            if descriptor in live:
                live[descriptor].hear()

    def _lifeline(self) -> None:
        """Write progress down, and with it renew leases; stop what cannot be renewed."""
        due = self._flush.due()
        for engine in self._alive():
            if not due and not engine.turned:
                continue
            moves, waiting = engine.moves(), engine.waiting()
            try:
                self._write(engine, lambda moves=moves: self._store.progress(moves))  # type: ignore[misc]
                self._write(engine, lambda e=engine, w=waiting: self._store.renew(w, e.allowance))  # type: ignore[misc]
                engine.written(moves, waiting)
            finally:
                for lease in engine.overdue():
                    _log.warning("lease could not be renewed", job=lease.id, epoch=lease.epoch)
                    self._orphans[lease] = None
                    engine.abandon(lease)

    def _guard_leases(self) -> None:
        """A thread: while the loop waits for a database that does not answer, engines must stop all the same."""
        told: set[LeaseRef] = set()
        while not self._over.wait(0.1):
            here = [engine for engine in self._engines if engine.spawn_at == 0.0]  # only the loop asks who has ended
            late = {lease: engine for engine in here for lease in engine.overdue()}
            for lease in late.keys() - told:
                late[lease].tell({"do": "abandon", "id": lease.id, "epoch": lease.epoch})
                self._orphans[lease] = None
            told = set(late)

    def _return_leases(self) -> None:
        """A thread, so that it waits for the store and for nothing else: whoever sees these leases lapsed blames their
        jobs `MOMENT_SECONDS` after the store can be written again, and the loop may have other duties until then.
        """
        while not self._over.wait(0.1):
            if self._orphans:
                self._duty(self._give_back)

    def _give_back(self) -> None:
        """Jobs whose leases could not be renewed are anybody's once the store answers again; nobody is to blame."""
        for lease in tuple(self._orphans):
            with contextlib.suppress(StaleLease):  # somebody took it, or its end had been written after all
                self._store.release(lease)
            self._orphans.pop(lease, None)

    def _write(self, engine: EngineHandle, write: Callable[[], None]) -> None:
        try:
            write()
        except StaleLease as stale:
            for lease in stale.refs:
                engine.abandon(lease)

    def _bury(self) -> None:
        """Notice engines that died or hang; give their jobs back at once and start them again."""
        for engine in self._engines:
            if not engine.ended and engine.hangs:
                engine.hear()  # what it said while this loop waited for the store, which it may wait for as well
            if not engine.ended and engine.hangs and time.monotonic() >= self._mercy_until:
                _log.error("engine hangs", owner=engine.owner, seconds=engine.allowance)
                engine.kill()
            if engine.ended and engine.spawn_at == 0.0:
                engine.hear()
                tell = _log.info if self._drain_until else _log.error
                tell("engine ended", owner=engine.owner, how=engine.epitaph, jobs=[*engine.jobs])
                blamed = engine.blamed if self._drain_until is None else []  # then it was told to end
                self._dead.append((engine.owner, blamed, engine.epitaph))
                engine.channel.close()
                engine.jobs.clear()
                engine.respawn_later()
        if self._dead:
            self._duty(self._charge)  # while the attempt that took it is the job's last
        while self._dead:
            owner, blamed, how = self._dead[0]
            self._sweep(self._store.crashed(owner, blamed, f"its process ended: {how}"))
            self._dead.pop(0)
        for engine in self._engines:
            if engine.spawn_at and self._drain_until is None and time.monotonic() >= engine.spawn_at:
                engine.spawn_at = 0.0
                engine.spawn()

    def _sweep(self, taken_back: Sequence[Job]) -> None:
        """Jobs came back without their holder's word; what it was writing is of no use to anybody."""
        for job in taken_back:
            _log.warning("job taken back", job=job.id, epoch=job.epoch, state=job.state.value, crashes=job.crashes)
            if job.state.terminal:
                self._house.forget(job.id)
            else:
                self._house.discard(job.lease)

    def _cancel(self) -> None:
        engines = {engine.owner: engine for engine in self._alive() if engine.jobs}
        for lease in self._store.cancellations(engines):
            engines[lease.owner].tell({"do": "cancel", "id": lease.id, "epoch": lease.epoch})

    def _bring_back(self) -> None:
        """The reconciler. Two of them at once make no difference: every write names the epoch it means."""
        began = time.monotonic()
        for worker in self._store.workers.lose():  # a write, and so a look at whether others could write
            _log.warning("worker lost", lost=worker)
        if self._patience(began):
            self._expire()
        self._store.promote()
        self._store.rest()
        self._unblock()
        self._sender.flush()
        for pool in self._store.queued_pools():
            self._sender.send(pool)

    def _expire(self) -> None:
        """Take back what has lapsed `MOMENT_SECONDS` after this machine saw that jobs could be written: a holder whom a
        lock has kept from renewing does so, or gives its job back, as soon as the lock is gone.
        """
        lapsed, now = self._store.lapsed(), time.monotonic()
        self._lapsed = {lease: self._lapsed.get(lease, now) for lease in lapsed}
        sure = [lease for lease, seen in self._lapsed.items() if now - seen >= MOMENT_SECONDS]
        self._sweep(self._store.expire_leases(self._settings.lease_seconds / 4, sure))
        if len(sure) < len(lapsed):
            self._reconcile.within(MOMENT_SECONDS)

    def _hear(self) -> None:
        """Start listening again if hints are sent and not heard. Jobs wait for it no longer than for a lost hint."""
        if self._receiver.unheard >= CALLS:
            _log.error("hints are not heard, listens anew", calls=self._receiver.unheard)
            self._receiver.restart()
        self._receiver.call()

    def _unblock(self) -> None:
        """Pools that a full disk has blocked are opened as soon as results can be written again."""
        blocked = self._store.pools.blocked(self._pools)
        if blocked and not self._probing:
            self._probing = True
            self._house.do(lambda: self._open(blocked))

    def _open(self, blocked: Sequence[str]) -> None:
        """In the housekeeper's thread, which may wait for the disk or bucket."""
        try:
            self._house.probe()
        except StorageError as error:
            _log.warning("pools stay blocked", pools=blocked, reason=error.message)
        else:
            _log.info("pools opened", pools=self._store.pools.unblock(blocked))
        finally:
            self._probing = False

    def _charge(self) -> None:
        """Put the seconds that the devices worked, and the energy, on the accounts of jobs and users."""
        for engine in self._engines:
            seconds, joules = engine.bill()
            self._store.charge(seconds, joules)
            engine.paid(seconds)

    def _tell_how(self) -> None:
        state = self._how()
        if state == self._state and not self._report.due():
            return
        self._state = state
        usage = self._telemetry.usage([os.getpid(), *(engine.pid for engine in self._alive())])
        me = Worker(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=",".join(self._devices),
            pool=",".join(self._pools),
            state=state,
            models=tuple(dict.fromkeys(name for engine in self._engines for name in engine.models)),
            started_at=self._started,
            seen_at=time.time(),
            finished_jobs=sum(engine.finished for engine in self._engines),
            memory_mb=usage.memory_mb,
            cpu_percent=usage.cpu_percent,
            gpu_percent=usage.gpu_percent,
        )
        if self._store.workers.seen(me):
            self.drain()
        self._tell_warm()

    def _tell_warm(self) -> None:
        """Tell the engines which models others have in memory that have nothing to do."""
        warm, alive = self._store.workers.warm(self.id), self._alive()
        for engine in alive:
            beside = (other.models for other in alive if other is not engine and not other.jobs)
            models = warm.union(*beside)
            if models != engine.elsewhere:
                engine.elsewhere = models
                engine.tell({"do": "elsewhere", "models": sorted(models)})

    def _how(self) -> str:
        if self._drain_until is not None:
            return "draining"
        if any(engine.jobs for engine in self._engines):
            return "busy"
        return "idle" if any(engine.ready for engine in self._alive()) else "starting"

    def _draining(self) -> None:
        if self._drain_until is None:
            return
        for engine in self._alive():
            if not self._drain_said:
                engine.tell({"do": "drain"})
                self._receiver.stop()
            if time.monotonic() > self._drain_until:
                engine.kill()
        self._drain_said = True

    def _alive(self) -> list[EngineHandle]:
        return [engine for engine in self._engines if engine.spawn_at == 0.0 and not engine.ended]

    def _on_hint(self, pool: str) -> None:
        """Runs in Celery's thread."""
        try:
            self._hint_out.send(b".")
        except BlockingIOError:
            return  # so many are waiting already that one more tells nothing


def devices(settings: Settings, *, cpu: bool = False, gpus: str | None = None) -> tuple[str, ...]:
    """Devices to run on, one engine process each.

    Args:
        settings: ``device`` counts when neither of the others is given.
        cpu: only the CPU.
        gpus: ``all``, or numbers with commas between them.

    Raises:
        InvalidInput: there is no such device.
    """
    if cpu and gpus:
        raise InvalidInput("gpus", gpus, "nothing beside --cpu")
    count = 0 if cpu else gpu_count()
    if gpus:
        wanted = [str(i) for i in range(count)] if gpus == "all" else [part.strip() for part in gpus.split(",")]
        known = {str(i) for i in range(count)}
        if not wanted or not set(wanted) <= known:
            there = f"GPUs 0 to {count - 1} are here" if count else "no NVIDIA GPU is here"
            raise InvalidInput("gpus", gpus, f"all, or numbers with commas; {there}")
        return tuple(f"cuda:{i}" for i in dict.fromkeys(wanted))
    if cpu:
        return ("cpu",)
    if settings.device == "auto":
        return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)
    return ("cuda:0",) if settings.device == "cuda" else (settings.device,)


def run(settings: Settings, on: Sequence[str], pools: Sequence[str]) -> None:
    """Be a worker until SIGTERM or SIGINT.

    Raises:
        SchemaMismatch: the store is not one for this Perrin.
    """
    logs.configure(settings.log_level, process="worker")
    os.environ.update(PERRIN_HOME=str(settings.home_path), PERRIN_POOLS=",".join(pools))  # for the engines
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's: a process is forked safely while it has one thread
    if settings.threads:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    store = JobStore(settings.store_url, patience=2.0)
    schema.check(store.database)
    ArtifactStore(settings.artifacts_path).check()
    supervisor = Supervisor(settings, store, on, pools)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.drain())
    supervisor.run()
    store.close()
