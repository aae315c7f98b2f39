"""Private servers for tests: PostgreSQL, Redis and RabbitMQ on free ports, in folders that go away.

Each can be started, stopped, killed and started again on the same port with the same data, or with its data deleted::

    with Guard() as guard:
        server = Redis(guard)
        server.start()
        server.url                     # redis://127.0.0.1:...
        server.restart("kill")         # kill -9, and up again
        server.wipe()                  # ... and its folder deleted in between
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from guard import Guard
from ports import free_port

__all__ = ["PostgreSQL", "RabbitMQ", "Redis", "Server", "free_port", "need"]

START_SECONDS = 60.0


def need(there: object, what: str, how: str) -> None:
    """Skip the test if something is missing on this machine, saying how to get it. In CI nothing may be missing."""
    if not there:
        message = f"no {what} on this machine: {how}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


class Server:
    """One server process.

    Args:
        guard: ends it with the test.
    """

    name = ""
    STOPS: Mapping[str, signal.Signals] = {"stop": signal.SIGTERM, "kill": signal.SIGKILL}

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.port = free_port()
        self.folder = guard.folder / f"{self.name}-{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @property
    def url(self) -> str:
        """Where clients find it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make its folder."""
        self.folder.mkdir(mode=0o700)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process."""
        raise NotImplementedError

    def answers(self) -> None:
        """Talk to it; raises while it is not up."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        end = time.monotonic() + START_SECONDS
        self.process = self.launch()
        while True:
            try:
                self.answers()
                return
            except Exception as error:
                if self.process.poll() is not None:  # what it was before may not be gone yet
                    self.process = self.launch()
                if time.monotonic() > end:
                    raise RuntimeError(f"{self.name} did not start: {error}\n{self.last_words()}") from None
            time.sleep(0.05)

    def stop(self, how: str = "stop") -> None:
        """End it, in one of the ways of `STOPS`, and wait until it is gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if how == "kill":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.send_signal(self.STOPS[how])
        self.process.wait(30)
        self.process = None

    def restart(self, how: str = "stop") -> None:
        """Stop and start; its data stay."""
        self.stop(how)
        self.start()

    def wipe(self) -> None:
        """Kill it, delete its folder, and start it anew."""
        self.stop("kill")
        shutil.rmtree(self.folder)
        self.prepare()
        self.start()

    def log(self) -> int:
        """A descriptor that the process's output may go to; the caller closes it."""
        return os.open(self.folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def spawn(self, *command: str, env: Mapping[str, str], user: str | None = None) -> subprocess.Popen[bytes]:
        """A process of this server, in its folder."""
        log = self.log()
        try:
            return self.guard.spawn(command, env=env, user=user, cwd=self.folder, stdout=log, stderr=log)
        finally:
            os.close(log)

    def last_words(self) -> str:
        """The end of its log."""
        path = self.folder.with_suffix(".log")
        return path.read_text(errors="replace")[-2000:] if path.exists() else "(no log)"


class PostgreSQL(Server):
    """A PostgreSQL cluster with the superuser ``perrin`` and no passwords. ``url`` is without a database."""

    name = "postgresql"
    STOPS: Mapping[str, signal.Signals] = {
        "stop": signal.SIGINT,  # "fast": takes transactions back, closes connections
        "immediate": signal.SIGQUIT,  # no shutdown at all: recovers when it starts
        "kill": signal.SIGKILL,
    }

    @staticmethod
    def programs() -> Path | None:
        """The folder of its programs."""
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        found = shutil.which("initdb")
        return folders[-1] if folders else Path(found).parent if found else None

    @classmethod
    def needed(cls) -> None:
        """Skip if there is none."""
        need(cls.programs(), "PostgreSQL server", "apt-get install postgresql")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://perrin@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        super().prepare()
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        command = [f"{self.programs()}/initdb", "-D", str(self.folder / "data"), "-U", "perrin", "-A", "trust"]
        self._run(*command, "-E", "UTF8", "--no-sync")

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self._user, cwd=self.folder, capture_output=True, env={"LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stderr.decode()

    def launch(self) -> subprocess.Popen[bytes]:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "32MB"}
        command = [f"{self.programs()}/postgres", "-D", str(self.folder / "data"), "-p", str(self.port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return self.spawn(*command, env={"LC_ALL": "C.UTF-8"}, user=self._user)

    def answers(self) -> None:
        import psycopg

        psycopg.connect(f"host=127.0.0.1 port={self.port} user=perrin dbname=postgres", connect_timeout=2).close()


class Redis(Server):
    """A Redis that keeps nothing on disk: what it held is gone when it stops."""

    name = "redis"

    @classmethod
    def needed(cls) -> None:
        """Skip if there is none."""
        need(shutil.which("redis-server"), "Redis server", "apt-get install redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self) -> subprocess.Popen[bytes]:
        options = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        return self.spawn("redis-server", "--port", str(self.port), *options, env=dict(os.environ))

    def answers(self) -> None:
        self._say(b"PING\r\n", b"+PONG")

    def flush(self) -> None:
        """Forget everything, while it runs."""
        self._say(b"FLUSHALL\r\n", b"+OK")

    def _say(self, what: bytes, wanted: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(what)
            answer = connection.recv(100)
        if not answer.startswith(wanted):
            raise RuntimeError(answer.decode())


class RabbitMQ(Server):
    """A RabbitMQ node, with a port mapper of its own.

    Args:
        guard: ends it with the test.
        config: lines of ``rabbitmq.conf``, such as ``consumer_timeout``.
    """

    name = "rabbitmq"
    PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on the PATH switches the user

    def __init__(self, guard: Guard, config: Mapping[str, object] | None = None) -> None:
        self._config = dict(config or {})
        self._dist, self._epmd_port = free_port(), free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        super().__init__(guard)

    @classmethod
    def needed(cls) -> None:
        """Skip if there is none."""
        need(cls.PROGRAM.exists(), "RabbitMQ server", "apt-get install rabbitmq-server")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def prepare(self) -> None:
        super().prepare()
        lines = {"loopback_users.guest": "true", "log.file.level": "warning", **self._config}
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.folder / "rabbitmq.conf").write_text(text)
        (self.folder / "enabled_plugins").write_text("[].\n")

    def launch(self) -> subprocess.Popen[bytes]:
        if self._epmd is None or self._epmd.poll() is not None:
            command = [shutil.which("epmd") or "epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)]
            self._epmd = self.spawn(*command, env=dict(os.environ))
        here = str(self.folder)
        environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"perrin{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
        }
        return self.spawn(str(self.PROGRAM), env=environment)

    def stop(self, how: str = "stop") -> None:
        super().stop(how)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def answers(self) -> None:
        self._with_channel(lambda channel: None)

    def flush(self, *queues: str) -> None:
        """Throw away what waits in these queues, while it runs. A queue that was just deleted holds nothing."""
        from amqp.exceptions import NotFound

        for queue in queues:
            with contextlib.suppress(NotFound):
                self._with_channel(lambda channel, name=queue: channel.queue_purge(name))

    def _with_channel(self, work: Callable[..., object]) -> None:
        from amqp import Connection

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Connection(f"127.0.0.1:{self.port}", connect_timeout=2) as connection:
                work(connection.channel())
