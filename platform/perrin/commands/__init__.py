"""The subcommands that come with Perrin. Each module is imported when its command is called."""

from __future__ import annotations

__all__: list[str] = []
