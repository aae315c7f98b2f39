"""Data that people have, read once into a memory-mapped pack, with a report of what was dropped and why.

::

    items   = read_folder(Path("pictures"), PICTURES)       or read_shards(...)
    packed  = pack(items, decode, Path("cache"), progress)  decoded, without duplicates, as arrays on disk
    packed.arrays["pixels"][7], packed.records[7].captions
"""

from __future__ import annotations

from perrin.training.data.pack import Pack, Record, open_pack, pack
from perrin.training.data.report import Report
from perrin.training.data.sources import (
    AUDIO,
    MOLECULES,
    PICTURES,
    SHAPES,
    Item,
    read_folder,
    read_molecules,
    read_shards,
    read_source,
)

__all__ = [
    "AUDIO",
    "MOLECULES",
    "PICTURES",
    "SHAPES",
    "Item",
    "Pack",
    "Record",
    "Report",
    "open_pack",
    "pack",
    "read_folder",
    "read_molecules",
    "read_shards",
    "read_source",
]
