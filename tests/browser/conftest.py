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
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from servers import hold_port

T = TypeVar("T")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
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
    chrome = _begun(browser, program, tmp_path_factory, tries=3)
    chrome.set_page_load_timeout(300)
    yield chrome
    chrome.quit()


def _begun(browser: str, program: str, folders: pytest.TempPathFactory, tries: int) -> Chrome:
    """A browser. Its driver gives it a minute, and looks for a free port that may be taken before it has it."""
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={folders.mktemp('browser')}"):
        options.add_argument(flag)
    try:
        return Chrome(options=options, service=ChromeService(program))
    except WebDriverException:
        if tries == 1:
            raise
    return _begun(browser, program, folders, tries - 1)


@contextmanager
def started(home: Path, **more: str) -> Iterator[str]:
    """Address of the dashboard of a platform of its own, that ``perrin up`` started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERRIN_")}
    perrin = [sys.executable, "-m", "perrin"]
    with hold_port() as held:
        port = str(held.getsockname()[1])
        environment |= {"PERRIN_HOME": str(home), "PERRIN_PORT": "0", "PERRIN_DASHBOARD_PORT": port, **more}
        up = subprocess.run([*perrin, "up"], env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert up.returncode == 0, up.stdout + up.stderr
        try:
            address = str(json.loads((home / "run.json").read_text())["dashboard_url"])
            assert address in up.stdout
            yield address
        finally:
            subprocess.run([*perrin, "down"], env=environment, capture_output=True, timeout=300, check=True)


AGAIN = 15.0
"""Seconds after which something is done again that nothing came of."""


class Page:
    """What a person can do: open, look, press, type.

    The dashboard draws a page bit by bit, and draws parts of it again whenever there is news. So nothing is looked for
    once, nothing that was found is kept, and what is done to an element that is just then drawn may be lost.
    """

    def __init__(self, driver: Chrome, address: str, screenshots: Path) -> None:
        self.driver, self.address, self.screenshots = driver, address, screenshots

    def open(self, path: str) -> None:
        self.driver.get(f"{self.address}/{path}")

    def until(self, what: str, look: Callable[[], T | None], seconds: float = 120) -> T:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := look():
                    return found
            except (WebDriverException, StopIteration, IndexError):
                pass  # the page was being drawn again, or what is looked for is not there yet
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        self.driver.save_screenshot(str(self.screenshots / "missing.png"))
        pytest.fail(f"never saw {what}; the page says:\n{self.text()}")

    def do(self, what: str, act: Callable[[], object], seen: Callable[[], T | None], seconds: float = 120) -> T:
        """Do something, and again if nothing comes of it for `AGAIN` seconds; what is seen of it at last."""
        done: list[float] = []

        def look() -> T | None:
            if found := seen():
                return found
            if not done or time.monotonic() > done[-1] + AGAIN:
                act()
                done.append(time.monotonic())
            return seen()

        return self.until(what, look, seconds)

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def see(self, *texts: str, seconds: float = 120) -> str:
        """All that can be read, once these can."""

        def look() -> str | None:
            said = self.text()
            return said if all(text in said for text in texts) else None

        return self.until(" and ".join(map(repr, texts)), look, seconds)

    def there(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def button(self, label: str) -> WebElement:
        return self.until(f"a button {label!r}", lambda: self._button(label))

    def _button(self, label: str) -> WebElement:
        return next(b for b in self.driver.find_elements(By.TAG_NAME, "button") if label in b.text)

    def press(self, label: str, seen: str | Callable[[], object]) -> None:
        """Press a button, of which this text, or this, is seen to come."""
        look = (lambda: seen in self.text()) if isinstance(seen, str) else seen
        self.do(f"what {label!r} does", lambda: self._button(label).click(), look)

    def generate(self) -> None:
        """Press "Generate", and see that there is a job."""
        self.press("Generate", lambda: any(text in self.text() for text in ("Cancel", "Again with another seed")))

    def write(self, selector: str, text: str) -> None:
        """Type into a field and leave it."""

        def typed() -> bool:
            field = self.there(selector)[0]
            if field.get_property("value") != text:
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(text, "\t")
            return bool(self.there(selector)[0].get_property("value") == text)

        self.until(f"{text!r} to be written", typed)

    def show(self, selector: str) -> None:
        """Scroll to it."""
        script = "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'}); return true"
        self.until(f"{selector} to scroll to", lambda: self.driver.execute_script(script, selector))

    def picture(self, within: str, seconds: float = 120) -> tuple[int, int]:
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
        assert not self.there('[data-testid="stException"]')
        assert "encountered an error" not in self.see("")
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))


@pytest.fixture(scope="module")
def visit(driver: Chrome, screenshots: Path) -> Callable[[str], Page]:
    """The page at a dashboard's address."""
    return lambda address: Page(driver, address, screenshots)


@pytest.fixture(scope="module")
def perrin_up() -> Callable[..., AbstractContextManager[str]]:
    """Starts a platform under a folder, with more settings."""
    return started
