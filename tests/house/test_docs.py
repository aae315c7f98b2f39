"""The examples in docs/ run as they stand, and links between pages lead somewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture
def own_environment() -> Iterator[None]:
    """A page may set PERRIN_HOME, and no other test is to find what the page has put there."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("core", 6),
        ("engine", 2),
        ("images", 6),
        ("molecules", 2),
        ("shapes", 4),
        ("checkpoints", 2),
        ("video", 3),
        ("audio", 3),
        ("chains", 2),
    ],
)
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("own_environment")
def test_pages_run(page: str, least: int, tmp_path: Path) -> None:
    path = f"docs/{page}.md"
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.S)
    assert len(blocks) >= least
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("/tmp/", f"{tmp_path}/"), path, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_and_command_is_in_the_reference() -> None:
    from perrin.cli import OWN
    from perrin.plugins import commands
    from perrin.settings import Settings

    text = (ROOT / "docs" / "reference.md").read_text()
    for name in Settings.model_fields:
        assert f"PERRIN_{name.upper()}" in text
    for command in [*OWN, *commands()]:
        assert f"### `perrin {command}`" in text
