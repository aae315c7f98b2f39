"""The servers that tests start end with the tests, even with one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from guard import Guard
from servers import PostgreSQL, Redis, Server

SCRIPT = """
import sys, time
import servers
from guard import Guard
guard = Guard()
kept = [getattr(servers, name)(guard) for name in sys.argv[1].split()]
for server in kept:
    server.start()
print(guard.folder, *[server.process.pid for server in kept], flush=True)
time.sleep(60)
"""


def test_servers_do_not_outlive_a_test_that_is_killed() -> None:
    for server in (PostgreSQL, Redis):
        server.needed()
    command = [sys.executable, "-c", SCRIPT, "PostgreSQL Redis"]
    paths = os.pathsep.join(sys.path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONPATH=paths))
    assert process.stdout is not None
    folder, *pids = process.stdout.readline().split()
    started = [psutil.Process(int(pid)) for pid in pids]
    everything = [*started, *(child for server in started for child in server.children(recursive=True))]
    assert len(everything) > len(started), "PostgreSQL has processes of its own"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(everything, timeout=60)
    assert [p for p in everything if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert not Path(folder).exists()


@pytest.mark.parametrize("kind", [PostgreSQL, Redis])
def test_a_server_comes_back_on_its_port_however_it_went(kind: type[Server]) -> None:
    kind.needed()
    with Guard() as guard:
        server = kind(guard)
        server.start()
        where = server.url
        for how in kind.STOPS:
            server.restart(how)
        server.wipe()
        server.answers()
        assert server.url == where
        server.stop()
        with pytest.raises(Exception, match="refused"):
            server.answers()
    assert not guard.folder.exists()
