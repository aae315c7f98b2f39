"""Settings: every ``PERRIN_*`` environment variable, in one place.

Everything that persists lives under ``PERRIN_HOME``. The three URLs move the store, the broker and the artifacts to
other machines; with none set, all three are folders under home and no service is needed.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


def _default_home() -> Path:
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "perrin"


class Settings(BaseSettings):
    """Read from the environment at construction; frozen afterwards."""

    model_config = SettingsConfigDict(env_prefix="PERRIN_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=_default_home, description="Folder that holds everything that persists.")
    url: str | None = Field(None, description="Address of the gateway, for the SDK, command line and dashboard.")
    api_key: str | None = Field(None, description="API key that the SDK, command line and dashboard present.")
    database_url: str | None = Field(None, description="SQLAlchemy URL of the job store. Default: SQLite under home.")
    broker_url: str | None = Field(None, description="Celery broker URL. Default: a folder under home.")
    artifacts_url: str | None = Field(
        None, description="Where files go: a folder, or s3://BUCKET/PREFIX. Default: under home."
    )
    models: str = Field("", description="Extra folders with models, separated by the path separator.")
    pools: str = Field("", description="Pools that a worker works for, with commas; every modality here if empty.")
    device: str = Field("auto", description="cpu, cuda, cuda:N, mps or auto.")
    memory_mb: int = Field(0, ge=0, description="Memory for the weights of models, in MiB; 0 goes by what is free.")
    threads: int = Field(0, ge=0, description="CPU threads a model may use; 0 leaves it to torch.")
    host: str = Field("127.0.0.1", description="Interface that the gateway and the dashboard listen on.")
    port: int = Field(7860, ge=0, le=65535, description="Port of the gateway; 0 takes a free one.")
    dashboard_port: int = Field(7861, ge=0, le=65535, description="Port of the dashboard; 0 takes a free one.")
    lease_seconds: float = Field(30.0, gt=0, le=3600, description="Shortest lease of a running job, in seconds.")
    save_seconds: float = Field(5.0, gt=0, le=3600, description="Sampler state is saved this often, in seconds.")
    min_free_mb: int = Field(200, ge=0, description="Refuse new work when less disk than this is free, in MiB.")
    keep_days: float = Field(0.0, ge=0, description="Days that jobs are kept which succeeded; 0 is for ever.")
    keep_failed_days: float = Field(0.0, ge=0, description="Days that other ended jobs are kept; 0 is for ever.")
    max_upload_mb: int = Field(64, ge=1, le=4096, description="Largest file that may be uploaded, in MiB.")
    log_level: str = Field("info", description="debug, info, warning or error.")

    @cached_property
    def home_path(self) -> Path:
        """``home``, absolute."""
        return self.home.expanduser().resolve()

    @property
    def memory(self) -> int | None:
        """Bytes that the weights of models may take together; None goes by what is free."""
        return self.memory_mb << 20 or None

    @property
    def run_file(self) -> Path:
        """What ``perrin up`` writes for clients on this machine: addresses, process ids and an API key."""
        return self.home_path / "run.json"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the job store."""
        return self.database_url or f"sqlite:///{self.home_path / 'perrin.db'}"

    @property
    def artifacts_path(self) -> str:
        """Folder or URL of the artifact store."""
        return self.artifacts_url or str(self.home_path / "artifacts")

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Folders searched for models, first match wins; models inside packages come after these."""
        extra = [Path(p).expanduser() for p in self.models.split(os.pathsep) if p]
        return (*extra, self.home_path / "models")
