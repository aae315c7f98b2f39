"""The licence that a checkpoint says it has: in the head of its README, or a file called LICENSE. No torch."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

__all__ = ["licence_in"]

_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
MOST = 1 << 20


def licence_in(path: Path) -> str:
    """In a word or a line; empty where nothing is said."""
    folder = path if path.is_dir() else path.parent
    named = _in_readme(folder / "README.md") if path.is_dir() else ""
    if named:
        return named
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE") if path.is_dir() else ():
        text = _read(folder / name)
        first = next((line.strip(" #*") for line in text.splitlines() if line.strip(" #*")), "")
        if first:
            return f"{first[:80]} (see its {name})"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace") if path.stat().st_size <= MOST else ""
    except OSError:
        return ""


def _in_readme(path: Path) -> str:
    head = _HEAD.match(_read(path))
    try:
        values = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return ""
    if not isinstance(values, dict):
        return ""
    named = values.get("license_name") or values.get("license") or ""
    link = values.get("license_link") or ""
    return f"{named} ({link})"[:200] if named and link else str(named)[:200]
