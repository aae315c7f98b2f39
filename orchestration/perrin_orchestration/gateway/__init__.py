"""HTTP, as `perrin.wire` says it. Imports no torch: requests are validated by the faces of the plugins alone."""

from __future__ import annotations

from perrin_orchestration.gateway.app import create_app

__all__ = ["create_app"]
