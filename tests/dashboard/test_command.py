from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from perrin.cli import main


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = main(["dashboard", "--port", str(taken.getsockname()[1])])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert "choose another with --port" in err


def test_the_server_gets_address_key_and_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: started.append((command, environment)))
    assert main(["dashboard", "--url", "http://there:1", "--api-key", "k", "--port", "0"]) == 0
    ((command, environment),) = started
    assert command[1:4] == ["-m", "streamlit", "run"]
    assert (environment["PERRIN_URL"], environment["PERRIN_API_KEY"]) == ("http://there:1", "k")
    assert int(command[command.index("--server.port") + 1]) > 0
    config = Path(command[4]).parent / ".streamlit" / "config.toml"
    assert "gatherUsageStats = false" in config.read_text()


def test_the_command_is_light() -> None:
    code = "import sys, perrin_dashboard.command; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"streamlit", "torch", "pandas", "httpx"} & set(loaded)
