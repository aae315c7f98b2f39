"""The dashboard in a real browser, on a platform that ``perrin up`` started: what a person sees, page by page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from selenium.webdriver.common.by import By

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = "a red apple"


@pytest.fixture(scope="module")
def page(
    visit: Callable[[str], Any],
    perrin_up: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    with perrin_up(tmp_path_factory.mktemp("home")) as address:
        yield visit(address)


@pytest.fixture(scope="module")
def made(page: Any) -> dict[str, Any]:
    """A picture made through the page: the job's id and the worker's."""
    page.open("")
    page.see("What would you like to make?")
    page.press("Image")
    page.see("Your result appears here")
    page.keep("create-empty")
    area = page.until("the prompt", lambda: page.driver.find_element(By.CSS_SELECTOR, ".st-key-prompt textarea"))
    area.send_keys(PROMPT)
    page.press("Generate")
    page.button("Cancel")
    page.keep("create-running")
    text = page.see("made by", seconds=400)
    size = page.picture("canvas")
    page.keep("create")
    job = re.search(r"job=([\w-]+)", page.driver.current_url)
    worker = re.search(r"made by (\S+) \(", text)
    assert job
    assert worker
    return {"job": job[1], "worker": worker[1], "size": size}


def test_a_prompt_becomes_a_picture(page: Any, made: dict[str, Any]) -> None:
    assert min(made["size"]) >= 16
    assert PROMPT in page.text()
    page.button("Download")
    page.button("Again with another seed")


def test_a_refresh_comes_back_to_the_job(page: Any, made: dict[str, Any]) -> None:
    page.open(f"?job={made['job']}")
    page.see("made by")
    assert page.picture("canvas") == made["size"]
    area = page.until("the prompt", lambda: page.driver.find_element(By.CSS_SELECTOR, ".st-key-prompt textarea"))
    page.until("the prompt to be back", lambda: area.get_property("value") == PROMPT)


def test_the_job_is_listed_and_opens(page: Any, made: dict[str, Any]) -> None:
    page.open("jobs")
    page.see(PROMPT)
    page.see("Done")
    page.picture("thumb")
    page.keep("jobs")
    page.press("Open")
    text = page.see(made["job"])
    assert made["worker"] in text
    assert "Seed" in text
    page.picture("canvas")
    page.see("Attempt 1")
    page.until("the plot", lambda: page.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .barlayer path"))
    page.keep("job")


def test_the_gallery_shows_the_picture(page: Any, made: dict[str, Any]) -> None:
    page.open("gallery")
    page.see(PROMPT)
    assert page.picture("tile") == made["size"]
    page.keep("gallery")


def test_the_worker_is_shown(page: Any, made: dict[str, Any]) -> None:
    page.open("workers")
    text = page.see("Memory")
    assert made["worker"] in text
    assert "Idle" in text or "Busy" in text
    plots = '[data-testid="stVegaLiteChart"] :is(canvas, svg)'
    page.until("the plots", lambda: page.driver.find_elements(By.CSS_SELECTOR, plots))
    page.keep("workers")


def test_dark_looks_right_too(page: Any, made: dict[str, Any]) -> None:
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        page.open(f"?job={made['job']}")
        page.see("made by")
        page.picture("canvas")
        page.keep("create-dark")
        script = "return getComputedStyle(document.querySelector('.stApp')).backgroundColor"
        red, green, blue = map(int, re.findall(r"\d+", page.driver.execute_script(script))[:3])
        assert max(red, green, blue) < 80
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
