"""What a statement is here: its text, and the indexes that it is meant to be answered by."""

from __future__ import annotations

from typing import Self

__all__ = ["Query"]


class Query(str):
    """A statement, whole.

    Args:
        text: the SQL; values are bound as ``:name``.
        indexes: what every table in it is reached by, as `perrin_orchestration.store.models` names them. A test asks
            both databases for their plans and finds these in them, and no scan of a table. ``a|b``: either will do.
    """

    __slots__ = ("indexes",)
    indexes: tuple[str, ...]

    def __new__(cls, text: str, *indexes: str) -> Self:
        """Text with its indexes."""
        made = super().__new__(cls, text)
        made.indexes = indexes
        return made
