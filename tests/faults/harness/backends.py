"""Which backends a test is about: what has nothing to do with the broker need not be tried on each."""

from __future__ import annotations

import pytest

__all__ = ["on_both_databases", "on_postgresql", "on_servers", "on_sqlite"]

on_both_databases = pytest.mark.parametrize("backend", ["sqlite", "redis"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("backend", ["redis"], indirect=True)
on_servers = pytest.mark.parametrize("backend", ["redis", "rabbitmq"], indirect=True)
"""SQLite is a file: it has no server to restart, no connection to cut and no answer to lose."""
