"""Chains in a real browser: a person builds one on the Create page, submits it, and sees what came of each step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import perrin

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

CHOICES = '[role="menuitem"], [role="option"], [data-testid="stMenuButtonOption"]'

PLAYS = (
    "const v = document.querySelector('[class*=\"st-key-tile\"] video');"
    "return v && v.readyState >= 2 && v.videoWidth > 0 ? [v.videoWidth, v.duration] : null"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def page(
    visit: Callable[[str], Any], perrin_up: Callable[..., AbstractContextManager[str]], home: Path
) -> Iterator[Any]:
    with perrin_up(home) as address:
        yield visit(address)


def client(home: Path) -> perrin.Client:
    run = json.loads((home / "run.json").read_text())
    return perrin.Client(run["url"], run["api_key"])


def holds(page: Any, text: str) -> Callable[[], bool]:
    script = "return [...document.querySelectorAll('input')].some(e => e.value === arguments[0])"
    return lambda: bool(page.driver.execute_script(script, text))


def choose(page: Any, menu: str, choice: str, seen: str) -> None:
    """Open a menu and choose, until this text is seen; a menu closes when the page is drawn again."""

    def act() -> None:
        offered = lambda: [e for e in page.there(CHOICES) if e.text.strip() == choice]  # noqa: E731
        page.press(menu, offered)
        offered()[0].click()

    page.do(f"{choice!r} of the menu {menu!r}", act, lambda: seen in page.text())


def generate(page: Any) -> None:
    """Press "Generate chain", and see the group of its jobs."""
    page.press("Generate chain", lambda: any(text in page.text() for text in ("Cancel all", "2 done")))


def test_a_chain_is_built_step_by_step_and_submitted_at_once(page: Any, home: Path) -> None:
    page.open("")
    page.see("What would you like to make?")
    page.press("Image", "Seamless")
    page.write(".st-key-prompt textarea", "a red apple")
    choose(page, "Then…", "Video", "1 · a red apple")
    page.until("the first step as input", holds(page, "From step 1: a red apple"))
    page.write(".st-key-prompt textarea", "a red apple bouncing")
    page.driver.execute_script("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    page.keep("chain-create")
    generate(page)
    page.keep("chain-running")
    page.see("2 done", seconds=600)
    assert min(page.picture("tile")) >= 64
    width, seconds = page.until("a clip that plays", lambda: page.driver.execute_script(PLAYS))
    assert width == 256
    assert seconds == pytest.approx(2, abs=0.1)
    page.keep("chain-group")
    with client(home) as platform:
        first, second = platform.groups(limit=1)[0].refresh().jobs
    assert [(edge.job, edge.parameter) for edge in second.parents] == [(first.id, "image")]
    assert second.parameters["image"] == first.artifacts[0].id


def test_a_result_is_used_in_another_modality(page: Any, home: Path) -> None:
    with client(home) as platform:
        picture = platform.submit("image", prompt="a pear", steps=4, sampler="ddim")
        picture.wait()
    page.open(f"jobs?job={picture.id}")
    choose(page, "Use in…", "Video", "First frame")
    page.until("the picture as input", holds(page, picture.record.artifacts[0].id))
    page.keep("chain-use-in")


def test_a_chain_that_ships_is_taken_and_altered(page: Any, home: Path) -> None:
    page.open("")
    page.see("molecule → depiction → spinning clip")
    page.keep("chain-ready")
    taken = holds(page, "From step 1: formula C7H10O2")
    page.do("the chain to be taken", lambda: page.there(".st-key-chain-molecule button")[0].click(), taken)
    page.keep("chain-taken")
    generate(page)
    page.see("2 done", seconds=600)
    page.until("a clip that plays", lambda: page.driver.execute_script(PLAYS))
    page.keep("chain-molecule")
    with client(home) as platform:
        depiction, clip = platform.groups(limit=1)[0].refresh().jobs
    assert (depiction.modality, depiction.format, clip.modality) == ("molecule", "gif", "video")
