"""The pinned sources of the pictures."""

from __future__ import annotations

from perrin.errors import PerrinError
from perrin.training.data.archives import Source

__all__ = ["SOURCES", "source"]

SOURCES: tuple[Source, ...] = (
    Source(
        "npm",
        "@iconify/json",
        "2.2.535",
        "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
        tuple(
            f"package/json/{name}.json"
            for name in (
                "twemoji",
                "noto",
                "noto-v1",
                "fxemoji",
                "fluent-emoji",
                "fluent-emoji-flat",
                "emojione",
                "streamline-emojis",
            )
        ),
    ),
    Source(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ("package/assets/",),
    ),
    Source(
        "npm",
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        ("package/en/",),
    ),
    Source(
        "npm",
        "emojilib",
        "4.0.3",
        "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
        ("package/dist/",),
    ),
    Source(
        "apt",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        ("usr/share/openclipart/svg/",),
    ),
)


def source(package: str) -> Source:
    """The pinned source of that package name. Raises PerrinError where there is none."""
    for item in SOURCES:
        if item.package == package:
            return item
    raise PerrinError(f"No pinned source is called {package!r}; known: {', '.join(s.package for s in SOURCES)}.")
