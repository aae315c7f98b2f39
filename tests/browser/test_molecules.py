"""A molecule made around a fragment through the page, and turned in space: what a chemist sees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

FURAN = """furan
  Perrin            3D

  5  5  0  0  0  0  0  0  0  0999 V2000
    0.5849   -0.8407    0.0945 C   0  0
   -0.8043   -0.6352   -0.0867 C   0  0
   -0.9854    0.7271   -0.1425 C   0  0
    0.2035    1.3697   -0.0073 O   0  0
    1.1544    0.4107    0.1365 C   0  0
  1  2  1  0
  2  3  2  0
  3  4  1  0
  4  5  1  0
  5  1  2  0
M  END
$$$$
"""


def test_a_fragment_is_completed_and_can_be_turned(
    visit: Callable[[str], Any], perrin_up: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    (tmp_path / "furan.sdf").write_text(FURAN)
    with perrin_up(tmp_path / "home") as address:
        page = visit(address)
        page.open("")
        page.press("Molecule", "What it should be like")
        group = lambda: next(e for e in page.there("details") if "should be" in e.text)  # noqa: E731
        opened = lambda: group().get_property("open")  # noqa: E731
        page.do("the group to open", lambda: group().find_element(By.TAG_NAME, "summary").click(), opened)
        file = str(tmp_path / "furan.sdf")
        page.do(
            "the file to be given",
            lambda: page.there("input[type=file]")[0].send_keys(file),
            lambda: "furan.sdf" in page.text(),
        )
        page.generate()
        page.see("made by", "stable", seconds=400)
        script = "const c = document.querySelector('.js-plotly-plot canvas'); return c ? [c.width, c.height] : null"
        assert min(page.until("a picture in space", lambda: page.driver.execute_script(script))) > 100
        page.show(".js-plotly-plot")
        page.keep("molecule")
