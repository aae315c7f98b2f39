"""Bytes on disk or in S3: results by their hash, sampler states and previews by their job."""

from __future__ import annotations

from perrin_orchestration.artifacts.place import Item
from perrin_orchestration.artifacts.store import YOUNG_SECONDS, ArtifactStore, Staged

__all__ = ["YOUNG_SECONDS", "ArtifactStore", "Item", "Staged"]
