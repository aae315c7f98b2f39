"""The dashboard in a real browser, on a platform that ``perrin up`` started: what a person sees, page by page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import perrin

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = "a red apple"
FIELD = ".st-key-prompt textarea"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def page(
    visit: Callable[[str], Any], perrin_up: Callable[..., AbstractContextManager[str]], home: Path
) -> Iterator[Any]:
    with perrin_up(home) as address:
        yield visit(address)


@pytest.fixture(scope="module")
def made(page: Any, home: Path) -> dict[str, Any]:
    """A picture made through the page: the job's id and the worker's."""
    run = json.loads((home / "run.json").read_text())
    with perrin.Client(run["url"], run["api_key"]) as client:
        client.submit("image", prompt="a pear", steps=1, sampler="ddim").wait()
        (pool,) = client.pools()
        client.change_pool(pool.name, "pause", "until the button has been seen")
        page.open("")
        page.see("What would you like to make?")
        page.press("Image", "Seamless")
        page.see("Your result appears here")
        page.keep("create-empty")
        page.write(FIELD, PROMPT)
        page.generate()
        page.button("Cancel")
        client.change_pool(pool.name, "resume")
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
    page.open(f"?job={made['job']}")
    page.see(PROMPT)
    page.button("Download")
    page.button("Again with another seed")


def test_a_refresh_comes_back_to_the_job(page: Any, made: dict[str, Any]) -> None:
    page.open(f"?job={made['job']}")
    page.see("made by")
    page.until("the picture", lambda: page.picture("canvas") == made["size"])
    page.until("the prompt to be back", lambda: page.there(FIELD)[0].get_property("value") == PROMPT)


def test_the_job_is_listed_and_opens(page: Any, made: dict[str, Any]) -> None:
    page.open("jobs")
    page.see(PROMPT, "Done")
    page.picture("thumb")
    page.keep("jobs")
    opens = f".st-key-open-{made['job']} button"
    page.do("the job to open", lambda: page.there(opens)[0].click(), lambda: made["job"] in page.text())
    page.see(made["job"], made["worker"], "Seed", "Attempt 1")
    page.picture("canvas")
    page.until("the plot", lambda: page.there(".js-plotly-plot .barlayer path"))
    page.keep("job")


def test_the_gallery_shows_the_picture(page: Any, made: dict[str, Any]) -> None:
    page.open("gallery")
    page.see(PROMPT)
    page.until("the picture", lambda: page.picture("tile") == made["size"])
    page.keep("gallery")


def test_the_worker_is_shown(page: Any, made: dict[str, Any]) -> None:
    page.open("workers")
    page.see("Memory", made["worker"])
    page.until("what it does", lambda: any(state in page.text() for state in ("Idle", "Busy")))
    plots = '[data-testid="stVegaLiteChart"] :is(canvas, svg)'
    page.until("the plots", lambda: page.there(plots))
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
        shades = lambda: map(int, re.findall(r"\d+", page.driver.execute_script(script))[:3])  # noqa: E731
        page.until("a dark background", lambda: max(shades()) < 80)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
