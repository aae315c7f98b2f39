"""A real browser, what a person does with it, and platforms to look at.

Screenshots go to the folder that PERRIN_SCREENSHOTS names, else to a temporary one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

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


@contextmanager
def started(home: Path, **more: str) -> Iterator[str]:
    """Address of the dashboard of a platform of its own, that ``perrin up`` started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERRIN_")}
    environment |= {"PERRIN_HOME": str(home), "PERRIN_PORT": "0", "PERRIN_DASHBOARD_PORT": "0", **more}
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
            except (StaleElementReferenceException, WebDriverException, StopIteration, IndexError):
                pass  # the page was being drawn again, or what is looked for is not there yet
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
def visit(driver: Chrome, screenshots: Path) -> Callable[[str], Page]:
    """The page at a dashboard's address."""
    return lambda address: Page(driver, address, screenshots)


@pytest.fixture(scope="module")
def perrin_up() -> Callable[..., AbstractContextManager[str]]:
    """Starts a platform under a folder, with more settings."""
    return started
