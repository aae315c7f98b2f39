"""Perrin generates images, video, audio, 3D shapes and molecules with diffusion models.

Importing it loads no torch::

    import perrin

    client = perrin.Client()                                       # a running platform
    job = client.submit("image", prompt="a red apple", seed=7)
    job.save("out/")

    perrin.load("image")("a red apple", seed=7).save("apple.png")  # in this process, no services
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perrin.client import Client, Job
    from perrin.local import Generator, load

__all__ = ["Client", "Generator", "Job", "__version__", "load"]

__version__ = "0.1.0"

_LAZY = {
    "Client": "perrin.client",
    "Job": "perrin.client",
    "Generator": "perrin.local",
    "load": "perrin.local",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'perrin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
