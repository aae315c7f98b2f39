"""Chains in a real browser: a person builds one on the Create page, submits it, and sees what came of each step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

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


def write(page: Any, prompt: str) -> None:
    def typed() -> bool:
        area = page.driver.find_element(By.CSS_SELECTOR, ".st-key-prompt textarea")
        if area.get_property("value") != prompt:
            area.send_keys(Keys.CONTROL, "a")
            area.send_keys(prompt, "\t")
        return bool(area.get_property("value") == prompt)

    page.until("what was written", typed)


def holds(page: Any, text: str) -> None:
    script = "return [...document.querySelectorAll('input')].some(e => e.value === arguments[0])"
    page.until(f"a field with {text!r}", lambda: page.driver.execute_script(script, text))


def choose(page: Any, menu: str, choice: str) -> None:
    page.press(menu)

    def look() -> bool | None:
        found = [e for e in page.driver.find_elements(By.CSS_SELECTOR, CHOICES) if e.text.strip() == choice]
        return found[0].click() or True if found else None

    page.until(f"{choice!r} in the menu {menu!r}", look)


def test_a_chain_is_built_step_by_step_and_submitted_at_once(page: Any, home: Path) -> None:
    page.open("")
    page.see("What would you like to make?")
    page.press("Image")
    page.see("Seamless")
    write(page, "a red apple")
    choose(page, "Then…", "Video")
    page.see("1 · a red apple")
    holds(page, "From step 1: a red apple")
    write(page, "a red apple bouncing")
    page.driver.execute_script("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    page.keep("chain-create")
    page.press("Generate chain")
    page.see("Cancel all")
    page.keep("chain-running")
    page.see("2 done", seconds=600)
    assert min(page.picture("tile")) >= 64
    width, seconds = page.until("a clip that plays", lambda: page.driver.execute_script(PLAYS))
    assert width == 256
    assert seconds == pytest.approx(2, abs=0.1)
    page.keep("chain-group")
    group = client(home).groups(limit=1)[0].refresh()
    first, second = group.jobs
    assert [(edge.job, edge.parameter) for edge in second.parents] == [(first.id, "image")]
    assert second.parameters["image"] == first.artifacts[0].id


def test_a_result_is_used_in_another_modality(page: Any, home: Path) -> None:
    picture = next(job for job in client(home).jobs(modality="image"))
    page.open(f"jobs?job={picture.id}")
    choose(page, "Use in…", "Video")
    page.see("First frame")
    holds(page, picture.artifacts[0].id)
    page.keep("chain-use-in")


def test_a_chain_that_ships_is_taken_and_altered(page: Any, home: Path) -> None:
    page.open("")
    page.see("molecule → depiction → spinning clip")
    page.keep("chain-ready")
    page.until(
        "the chain to be taken",
        lambda: page.driver.find_element(By.CSS_SELECTOR, ".st-key-chain-molecule button").click() or True,
    )
    holds(page, "From step 1: formula C7H10O2")
    page.keep("chain-taken")
    page.press("Generate chain")
    page.see("2 done", seconds=600)
    page.until("a clip that plays", lambda: page.driver.execute_script(PLAYS))
    page.keep("chain-molecule")
    depiction, clip = client(home).groups(limit=1)[0].refresh().jobs
    assert (depiction.modality, depiction.format, clip.modality) == ("molecule", "gif", "video")
