"""Audio in a real browser: a person asks for a sound, and it plays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

ASKED = "return document.querySelector('.st-key-prompt textarea').value"

HEARD = (
    "const a = document.querySelector('[class*=\"st-key-canvas\"] audio');"
    "return a && a.readyState >= 1 && a.duration > 0 ? a.duration : null"
)

PLAY = (
    "const a = document.querySelector('[class*=\"st-key-canvas\"] audio');"
    "if (a.currentTime > 0.2) return a.currentTime;"
    "a.muted = true; a.play(); return null"
)


def test_a_caption_becomes_a_sound_that_plays(
    visit: Callable[[str], Any],
    perrin_up: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with perrin_up(tmp_path_factory.mktemp("home")) as address:
        page = visit(address)
        page.open("")
        page.see("What would you like to make?")
        page.press("Audio", "violin, note A4, loud")
        page.press("violin, note A4, loud", lambda: page.driver.execute_script(ASKED) == "violin, note A4, loud")
        page.generate()
        page.see("made by", seconds=400)
        assert page.until("a sound", lambda: page.driver.execute_script(HEARD)) == pytest.approx(2, abs=0.01)
        assert page.until("it to play", lambda: page.driver.execute_script(PLAY)) > 0.2
        width, height = page.picture("canvas")
        assert width > 100
        assert height > 50
        page.button("Download")
        page.keep("audio")
