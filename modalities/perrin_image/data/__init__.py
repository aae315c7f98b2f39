"""The image modality's training data: captioned pictures from packages of permissive licence, prepared into one
memory-mapped pack."""

from __future__ import annotations

from .pack import Pack, Record, open_pack
from .recipe import attributions, prepare
from .sheet import contact_sheet

__all__ = ["Pack", "Record", "attributions", "contact_sheet", "open_pack", "prepare"]
