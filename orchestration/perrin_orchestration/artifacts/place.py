"""Where bytes lie: under keys such as ``blobs/ab/cd/SHA256``, each of them whole or not there.

There are two kinds of place, and what makes bytes whole differs. A folder is written to under another name, synced and
renamed; in an object store a put is atomic by itself, and nothing can be renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ASIDE", "STAGING", "Item", "Place", "Tell", "nobody"]

Tell = Callable[[], None]
"""Called now and then while bytes are on their way, from any thread, so that slow is not taken for stuck."""

STAGING = "staging/"
"""Where a folder keeps what is being written."""

ASIDE = "removed/"
"""Where an object store keeps, for a while, what is about to be deleted."""


def nobody() -> None:
    """Nobody waits for a word."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that lies there: its key, and when it was last written, in seconds since 1970."""

    key: str
    modified: float

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]


class Place(Protocol):
    """A folder or a bucket.

    Every method raises `perrin.errors.StorageError` if the place refuses, and its subclass
    `perrin.errors.StorageAway` if it does not answer.
    """

    def check(self) -> None:
        """Make sure that it is there and may be used."""
        ...

    def check_answers(self) -> None:
        """Make sure, at no cost while all is well, that it answers."""
        ...

    def free(self) -> int | None:
        """Bytes that are left, where that is known."""
        ...

    def draft(self, name: str, key: str, data: bytes, *, durable: bool = True, tell: Tell = nobody) -> None:
        """Write ``data`` that is to lie under ``key`` in the end; ``name`` is unique to this writing."""
        ...

    def finish(self, name: str, key: str) -> None:
        """What was drafted lies under ``key`` from here on."""
        ...

    def drop_drafts(self, start: str) -> None:
        """Remove the drafts whose names begin so."""
        ...

    def read(self, key: str, tell: Tell = nobody) -> bytes | None:
        """The bytes under ``key``, or None."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Remove keys; those that are not there are no error."""
        ...

    def retire(self, key: str, before: float) -> bool:
        """Remove ``key`` unless it was written, or is being written, after ``before``; whether it is gone.

        Somebody else may write the very same bytes under it at this moment, and must not lose them.
        """
        ...

    def put_back(self, key: str) -> None:
        """Undo `retire`, where what was retired is still at hand."""
        ...

    def page(self, start: str, after: str = "", limit: int = 1000) -> list[Item]:
        """Up to ``limit`` items whose keys begin with ``start`` and come after ``after``, in order.

        What is after the last of them is the next page.
        """
        ...

    def tidy(self, before: float) -> int:
        """Remove uploads in parts that were begun before a moment and never finished; how many."""
        ...
