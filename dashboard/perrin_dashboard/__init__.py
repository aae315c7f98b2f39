"""The dashboard: pages in a browser that talk to a gateway through `perrin.client` and to nothing else.

Forms are drawn from the JSON schema of a modality, results by its view kind; no modality is known by name.
"""

from __future__ import annotations

__all__: list[str] = []
