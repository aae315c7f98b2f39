"""Video in a real browser: a person asks for a clip, and it plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

import perrin

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

ASKED = "return document.querySelector('.st-key-prompt textarea').value"

PLAYS = (
    "const v = document.querySelector('[class*=\"st-key-canvas\"] video');"
    "return v && v.readyState >= 2 && v.currentTime > 0 ? [v.videoWidth, v.videoHeight, v.duration] : null"
)


def test_a_caption_becomes_a_clip_that_plays(
    visit: Callable[[str], Any],
    perrin_up: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("home")
    with perrin_up(home) as address:
        page = visit(address)
        page.open("")
        page.see("What would you like to make?")
        page.press("Video", "a rocket flying up")
        page.press("a rocket flying up", lambda: page.driver.execute_script(ASKED) == "a rocket flying up")
        page.keep("video-create")
        page.generate()
        page.see("made by", seconds=400)
        width, height, seconds = page.until("a clip that plays", lambda: page.driver.execute_script(PLAYS))
        assert (width, height) == (256, 256)
        assert seconds == pytest.approx(2, abs=0.1)
        page.button("Download")
        page.keep("video")
        run = json.loads((home / "run.json").read_text())
        with perrin.Client(run["url"], run["api_key"]) as client:
            jobs = client.jobs(limit=5)
            assert jobs[-1].record.artifacts[0].media_type == "video/mp4"
            gif = client.submit("video", prompt="a gear spinning", frames=6, steps=3, format="gif").wait()
        page.open(f"?job={gif.id}")
        page.see("made by")
        assert min(page.picture("canvas")) == 256
        page.keep("video-gif")
