"""What an operator does in the browser: looks at groups and histories, retries dead letters, pauses pools."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from outside import install

from perrin.client import Client
from perrin.errors import Conflict
from perrin.settings import Settings

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Studio:
    """A platform with the tests' plugin, a browser and an SDK that look at it."""

    page: Any
    client: Client

    def wait(self, what: str, look: Callable[[], Any], seconds: float = 180) -> Any:
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, f"never {what}"
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def studio(
    visit: Callable[[str], Any],
    perrin_up: Callable[..., AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Studio]:
    site = install(tmp_path_factory.mktemp("outside"))
    home = tmp_path_factory.mktemp("home")
    more = {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}
    with perrin_up(home, **more, PERRIN_DEVICE="cpu", PERRIN_MIN_FREE_MB="1") as address:
        run = json.loads(Settings(home=home).run_file.read_text())
        with Client(run["url"], run["api_key"]) as client:
            yield Studio(visit(address), client)


def job(name: str | None = None, parents: tuple[str, ...] = (), **parameters: Any) -> dict[str, Any]:
    return {
        "modality": "dots",
        "name": name,
        "parameters": parameters,
        "parents": [{"job": parent} for parent in parents],
    }


@pytest.fixture(scope="module")
def crashed(studio: Studio) -> Any:
    """A job that was set aside, after three attempts."""
    made = studio.client.submit("dots", prompt="a dot that kills its worker", trouble="crash", steps=6, delay=0.15)
    studio.wait("quarantined", lambda: made.refresh().state.terminal)
    assert made.record.state.value == "quarantined"
    return made


def test_a_group_is_a_picture_with_its_states(studio: Studio, crashed: Any) -> None:
    group = studio.client.submit_group(
        [
            job("sketch", prompt="a sketch of a lighthouse"),
            job("colour", ("sketch",), prompt="the lighthouse in colour", steps=1000, delay=0.5),
            job("night", ("sketch",), prompt="the lighthouse at night", trouble="fail"),
            job("poster", ("colour",), prompt="a poster"),
            job("card", ("colour", "night"), prompt="a card"),
            job("mug", ("night",), prompt="a mug with a very long description " + "of what is on it " * 6),
        ],
        label="lighthouse",
    )
    many = studio.client.submit_group(
        [job(prompt=f"variation {number}", delay=0.2) for number in range(23)], label="many"
    )
    states = lambda: {one.name: one.state.value for one in group.refresh().jobs}  # noqa: E731
    studio.wait("begun", lambda: states()["colour"] == "running" and states()["sketch"] == "succeeded")
    page = studio.page
    page.open("groups")
    page.see("lighthouse", "many")
    page.keep("groups")
    page.open(f"groups?group={group.id}")
    page.see("Cancel all")
    boxes = lambda state: page.there(f".perrin-node.{state}")  # noqa: E731
    page.until("a box that runs", lambda: boxes("running"))
    page.until("a box that waits", lambda: boxes("waiting"))
    page.until("a box that is done", lambda: len(boxes("succeeded")) == 1)
    page.until("the lines", lambda: page.there('.perrin-graph [alt="6 dependencies"]'))
    page.keep("group")
    page.press("Cancel all", lambda: states()["colour"] == "cancelled")
    page.until("its box", lambda: boxes("cancelled"))
    page.open(f"groups?group={many.id}")
    page.see("variation 3")
    page.keep("group-many")
    page.do("the job of a box", lambda: boxes("succeeded")[0].click(), lambda: "All jobs" in page.text())
    page.see("Its group")
    with contextlib.suppress(Conflict):
        many.cancel()  # so that nothing waits where other tests count
    studio.wait("over", lambda: all(one.state.terminal for one in many.refresh().jobs))


def test_a_history_is_a_plot_of_attempts_and_says_why_each_ended(studio: Studio, crashed: Any) -> None:
    page = studio.page
    page.open(f"jobs?job={crashed.id}")
    page.see("Attempt 1", "Attempt 3", "SIGSEGV")
    page.until("the plot", lambda: page.there(".js-plotly-plot .barlayer path"))
    page.show(".js-plotly-plot")
    page.keep("job-history")


def test_parents_and_children_lead_to_each_other(studio: Studio) -> None:
    group = studio.client.submit_group(
        [job("first", prompt="the first dot"), job("second", ("first",), prompt="the second dot")]
    )
    studio.wait("done", lambda: not group.refresh() or all(one.record.state.terminal for one in group.jobs))
    page = studio.page
    page.open(f"jobs?job={group.jobs[0].id}")
    page.see("Children")
    page.press("the second dot", "Parents")
    page.press("the first dot", "Children")


def test_a_dead_letter_is_tried_again(studio: Studio, crashed: Any) -> None:
    failed = studio.client.submit("dots", prompt="flat as a board", trouble="degenerate")
    studio.wait("failed", lambda: failed.refresh().state.terminal)
    page = studio.page
    page.open("jobs")
    page.see("flat as a board")
    options = lambda: [one for one in page.there('[role="option"]') if "Dead letters" in one.text]  # noqa: E731

    def choose() -> None:
        page.do("the states", lambda: page.there(".st-key-jobs-state input")[0].click(), options)
        options()[0].click()

    page.do("the dead letters", choose, lambda: "nobody has tried again" in page.text())
    page.see("flat as a board")
    page.keep("dead-letters")
    before = {one.id for one in studio.client.jobs()}
    place = f".st-key-retry-{failed.id} button"
    page.do("another try", lambda: page.there(place)[0].click(), lambda: "Another try of" in page.text())
    found = page.until("its address", lambda: re.search(r"job=([\w-]+)", page.driver.current_url))
    again = studio.client.job(found[1]).record
    assert again.id not in before
    assert again.retry_of == failed.id
    assert failed.id not in {one.id for one in studio.client.jobs(dead=True)}


def test_a_pool_that_is_paused_on_the_page_is_paused(studio: Studio) -> None:
    page, client = studio.page, studio.client
    client.submit("dots", prompt="a pool is known from its first job on").wait()
    page.open("pools")
    page.see("Open")
    page.write(".st-key-why-dots input", "the disk is nearly full")
    page.press("Pause", "the disk is nearly full")
    pool = next(one for one in client.pools() if one.name == "dots")
    assert (pool.state, pool.reason) == ("paused", "the disk is nearly full")
    waits = client.submit("dots", prompt="later")
    time.sleep(3)
    assert waits.refresh().state.value == "queued"
    page.until("one queued", lambda: re.search(r"Queued\s+1\b", page.text()))
    page.keep("pools")
    page.press("Resume", "Jobs are taken and run as usual.")
    studio.wait("run", lambda: waits.refresh().state.value == "succeeded")
