"""What was read, what was dropped, and why: counts, and a few names of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report"]

EXAMPLES = 5


@dataclass
class Report:
    """Filled while data are read.

    Attributes:
        read: items that were found.
        kept: those that are in the pack.
        dropped: by reason, how many.
        examples: by reason, the first few names.
        notes: figures of other kinds, such as captions an item.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def drop(self, reason: str, name: str) -> None:
        """An item is left out."""
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(name)

    @property
    def text(self) -> str:
        """For people."""
        lines = [f"{self.read} read, {self.kept} kept"]
        for reason, count in self.dropped.most_common():
            more = ", ..." if count > len(self.examples[reason]) else ""
            lines.append(f"  {count} dropped, {reason}: {', '.join(self.examples[reason])}{more}")
        lines += [f"  {name}: {value}" for name, value in self.notes.items()]
        return "\n".join(lines) + "\n"

    @property
    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "examples": self.examples,
            "notes": self.notes,
        }
