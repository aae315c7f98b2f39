"""The dashboard in a real browser, on a platform that ``perrin up`` started: what a person sees, page by page.

Screenshots go to the folder that PERRIN_SCREENSHOTS names, else to a temporary one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = "a red apple"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1400,1000",
)


def _programs() -> tuple[str, str]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    message = "no Chromium with its driver here; on Debian: apt install chromium chromium-driver"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("PERRIN_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser, program = _programs()
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    chrome = Chrome(options=options, service=ChromeService(program))
    chrome.set_page_load_timeout(120)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def dashboard(driver: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the dashboard of a platform of its own."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERRIN_")}
    environment |= {"PERRIN_HOME": str(home), "PERRIN_PORT": "0", "PERRIN_DASHBOARD_PORT": "0"}
    perrin = [sys.executable, "-m", "perrin"]
    done = subprocess.run([*perrin, "up"], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        address = json.loads((home / "run.json").read_text())["dashboard_url"]
        assert address in done.stdout
        yield address
    finally:
        subprocess.run([*perrin, "down"], env=environment, capture_output=True, timeout=120, check=True)


class Page:
    """What a person can do: open, look, press, type."""

    def __init__(self, driver: Chrome, address: str, screenshots: Path) -> None:
        self.driver, self.address, self.screenshots = driver, address, screenshots

    def open(self, path: str) -> None:
        self.driver.get(f"{self.address}/{path}")

    def until(self, what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except (StaleElementReferenceException, WebDriverException):
                pass  # the page was being drawn again
            time.sleep(0.2)
        self.driver.save_screenshot(str(self.screenshots / "missing.png"))
        pytest.fail(f"never saw {what}; the page says:\n{self.text()}")

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def see(self, text: str, seconds: float = 60) -> str:
        return self.until(repr(text), lambda: self.text() if text in self.text() else None, seconds)

    def button(self, label: str) -> WebElement:
        def look() -> WebElement | None:
            return next((b for b in self.driver.find_elements(By.TAG_NAME, "button") if label in b.text), None)

        return self.until(f"a button {label!r}", look)

    def press(self, label: str) -> None:
        self.until(f"{label!r} to be pressed", lambda: self.button(label).click() or True)

    def picture(self, within: str, seconds: float = 60) -> tuple[int, int]:
        """Natural size of the first picture inside elements of a key, once it is loaded."""
        script = (
            f"const i = document.querySelector('[class*=\"st-key-{within}\"] img');"
            "return i && i.complete && i.naturalWidth > 0 ? [i.naturalWidth, i.naturalHeight] : null"
        )
        width, height = self.until(f"a picture in {within}", lambda: self.driver.execute_script(script), seconds)
        return width, height

    def keep(self, name: str) -> None:
        """Take a screenshot, after checking that nothing went wrong on the page."""
        time.sleep(1)  # transitions
        assert not self.driver.find_elements(By.CSS_SELECTOR, '[data-testid="stException"]')
        assert "encountered an error" not in self.text()
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))


@pytest.fixture(scope="module")
def page(driver: Chrome, dashboard: str, screenshots: Path) -> Page:
    return Page(driver, dashboard, screenshots)


@pytest.fixture(scope="module")
def made(page: Page) -> dict[str, Any]:
    """A picture made through the page: the job's id and the worker's."""
    page.open("")
    page.see("What would you like to make?")
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


def test_a_prompt_becomes_a_picture(page: Page, made: dict[str, Any]) -> None:
    assert min(made["size"]) >= 16
    assert PROMPT in page.text()
    page.button("Download")
    page.button("Again with another seed")


def test_a_refresh_comes_back_to_the_job(page: Page, made: dict[str, Any]) -> None:
    page.open(f"?job={made['job']}")
    page.see("made by")
    assert page.picture("canvas") == made["size"]
    area = page.until("the prompt", lambda: page.driver.find_element(By.CSS_SELECTOR, ".st-key-prompt textarea"))
    page.until("the prompt to be back", lambda: area.get_property("value") == PROMPT)


def test_the_job_is_listed_and_opens(page: Page, made: dict[str, Any]) -> None:
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
    page.until("the timeline", lambda: page.driver.find_element(By.TAG_NAME, "summary")).click()
    page.see("Step")
    page.keep("job")


def test_the_gallery_shows_the_picture(page: Page, made: dict[str, Any]) -> None:
    page.open("gallery")
    page.see(PROMPT)
    assert page.picture("tile") == made["size"]
    page.keep("gallery")


def test_the_worker_is_shown(page: Page, made: dict[str, Any]) -> None:
    page.open("workers")
    text = page.see("Memory")
    assert made["worker"] in text
    assert "Idle" in text or "Busy" in text
    plots = '[data-testid="stVegaLiteChart"] :is(canvas, svg)'
    page.until("the plots", lambda: page.driver.find_elements(By.CSS_SELECTOR, plots))
    page.keep("workers")


def test_dark_looks_right_too(page: Page, made: dict[str, Any]) -> None:
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
