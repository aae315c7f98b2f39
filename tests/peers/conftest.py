"""A home of its own for every test that adds models."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
