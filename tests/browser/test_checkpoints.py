"""A checkpoint that was added, chosen and used in the dashboard like any other model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
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
        page.press("Image", "Seamless")
        script = "arguments[0].scrollIntoView(); arguments[0].click()"
        folded = lambda: next(e for e in page.there("summary") if "Advanced" in e.text)  # noqa: E731
        box = "[class*=st-key-form-image-model]"
        page.do(
            "the models",
            lambda: page.driver.execute_script(script, folded()),
            lambda: page.there(f"{box} input")[0].is_displayed(),
        )
        page.do(
            "the model to be chosen",
            lambda: page.there(f"{box} input")[0].send_keys(Keys.CONTROL, "a", Keys.NULL, "dreamy", Keys.ENTER),
            lambda: "dreamy" in page.there(box)[0].text + page.there(f"{box} input")[0].get_property("value"),
        )
        page.write(".st-key-prompt textarea", "a red apple")
        page.generate()
        page.see("made by", "dreamy", seconds=300)
        page.until("the picture", lambda: page.picture("canvas") == (32, 32))
        page.keep("checkpoint")
