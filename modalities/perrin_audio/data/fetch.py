"""The pinned sources: a SoundFont of instruments, and recorded hits."""

from __future__ import annotations

from pathlib import Path

from perrin.modality import Progress
from perrin.training.data.archives import Source, unpacked

__all__ = ["ATTRIBUTIONS", "HITS", "SOUNDFONT", "hits_folder", "soundfont"]

SOUNDFONT = Source(
    "apt",
    "fluid-soundfont-gm",
    "3.1-5.3",
    "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
    ("usr/share/sounds/sf2/",),
)
HITS = Source(
    "apt",
    "sonic-pi-samples",
    "3.2.2~repack-8",
    "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
    ("usr/share/sonic-pi/samples/",),
)
ATTRIBUTIONS = (
    {
        "source": "fluid-soundfont-gm 3.1-5.3",
        "licence": "MIT",
        "line": "FluidR3 GM, Copyright (c) 2000-2002, 2008 Frank Wen",
    },
    {
        "source": "sonic-pi-samples 3.2.2~repack-8",
        "licence": "CC0-1.0",
        "line": "Samples of Sonic Pi, from freesound.org",
    },
)


def soundfont(folder: Path, progress: Progress) -> Path:
    """The ``.sf2``, below ``folder``."""
    progress(0, 2, "fetching the SoundFont")
    return unpacked(SOUNDFONT, folder) / "usr/share/sounds/sf2/FluidR3_GM.sf2"


def hits_folder(folder: Path, progress: Progress) -> Path:
    """The folder of recorded hits, below ``folder``."""
    progress(1, 2, "fetching recorded hits")
    return unpacked(HITS, folder) / "usr/share/sonic-pi/samples"
