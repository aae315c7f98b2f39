"""A shape made through the page, and turned in space: what a person sees who asks for a chair."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

ASKED = "return document.querySelector('.st-key-prompt textarea').value"


def test_a_shape_is_made_and_can_be_turned(
    visit: Callable[[str], Any], perrin_up: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    with perrin_up(tmp_path / "home") as address:
        page = visit(address)
        page.open("")
        page.press("3D shapes", "a chair")
        page.press("a chair", lambda: page.driver.execute_script(ASKED) == "a chair")
        page.generate()
        page.see("drag to turn", seconds=400)
        script = "const c = document.querySelector('.js-plotly-plot canvas'); return c ? [c.width, c.height] : null"
        assert min(page.until("a picture in space", lambda: page.driver.execute_script(script))) > 100
        page.show(".js-plotly-plot")
        page.keep("shape")
