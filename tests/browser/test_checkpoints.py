"""A checkpoint that was added, chosen and used in the dashboard like any other model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from perrin.models.checkpoints import add_checkpoint

tiny = pytest.importorskip("tiny_checkpoints")
pytest.importorskip("diffusers")

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_picture_by_a_checkpoint(
    visit: Callable[[str], Any],
    perrin_up: Callable[..., AbstractContextManager[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERRIN_HOME", str(tmp_path / "home"))
    tiny.sd(tmp_path / "dreamy")
    add_checkpoint(tmp_path / "dreamy")
    with perrin_up(tmp_path / "home", PERRIN_DEVICE="cpu", PERRIN_MIN_FREE_MB="1", OMP_NUM_THREADS="1") as address:
        page = visit(address)
        page.open("")
        page.see("What would you like to make?")
        page.press("Image")
        find = page.driver.find_elements

        folded = page.until(
            "Advanced", lambda: next((s for s in find(By.TAG_NAME, "summary") if "Advanced" in s.text), None)
        )
        page.driver.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", folded)
        models = "[class*=st-key-form-image-model] input"
        model = page.until("the models", lambda: next(iter(find(By.CSS_SELECTOR, models)), None))
        page.until("the models to open", lambda: model.is_displayed() or None)
        model.send_keys("dreamy")
        model.send_keys(Keys.ENTER)
        area = page.until("the prompt", lambda: page.driver.find_element(By.CSS_SELECTOR, ".st-key-prompt textarea"))
        area.send_keys("a red apple")
        page.press("Generate")
        page.see("made by", seconds=300)
        assert page.picture("canvas") == (32, 32)
        assert "dreamy" in page.text()
        page.keep("checkpoint")
