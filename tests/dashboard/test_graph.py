"""The picture of a group, and the plot of a history."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perrin.wire import AttemptRecord, JobRecord, JobState, Parent, StageRecord
from perrin_dashboard.graph import depths, graph
from perrin_dashboard.history import plot

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def job(number: int, *parents: int, **changes: Any) -> JobRecord:
    nothing = dict.fromkeys(("progress", "position", "worker", "error", "started_at", "finished_at"))
    values: dict[str, Any] = {"id": f"j{number}", "user": "u", "modality": "dots", "model": "m", "format": "pgm"}
    values |= {"parameters": {"prompt": f"job {number}"}, "label": "", "priority": 0, "state": "waiting"}
    values |= {"cancel_requested": False, "attempts": 0, "epoch": 0, "artifacts": [], "created_at": NOW}
    values["parents"] = [Parent(job=f"j{parent}") for parent in parents]
    return JobRecord.model_validate(nothing | values | changes)


@st.composite
def graphs(draw: st.DrawFn) -> list[JobRecord]:
    count = draw(st.integers(1, 12))
    below = [draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in range(count)]
    return draw(st.permutations([job(number, *sorted(parents)) for number, parents in enumerate(below)]))


@given(graphs())
def test_every_job_stands_right_of_its_parents_and_no_farther_than_it_must(jobs: list[JobRecord]) -> None:
    found = depths(jobs)
    for one in jobs:
        assert found[one.id] == max((found[edge.job] + 1 for edge in one.parents), default=0)


@given(graphs())
def test_no_two_boxes_stand_in_one_place(jobs: list[JobRecord]) -> None:
    places = re.findall(r"left: (\d+)px; top: (\d+)px", graph(jobs))
    assert len(places) == len(set(places)) <= len(jobs)


def test_a_chain_as_long_as_a_group_is_drawn() -> None:
    chain = [job(0), *(job(number, number - 1) for number in range(1, 1500))]
    assert depths(chain[::-1])["j1499"] == 1499
    assert graph(chain).count("perrin-node") == 1500


def test_many_jobs_side_by_side_are_counted() -> None:
    assert "and 461 more" in graph([job(number) for number in range(500)])
    assert "and 93 more" in graph([job(0), *(job(number, 0) for number in range(1, 101))])


def test_a_line_for_each_parent_that_is_drawn_with_the_parameter_that_it_feeds() -> None:
    fed = job(1).model_copy(update={"parents": [Parent(job="j0", parameter="<image>"), Parent(job="elsewhere")]})
    page = graph([job(0), fed])
    drawing = re.search('base64,([^"]+)', page)
    assert drawing
    svg = base64.b64decode(drawing[1]).decode()
    assert svg.count("<path") == 1
    assert "&lt;image&gt;" in svg
    assert 'alt="1 dependency"' in page


def test_a_name_cannot_leave_its_box() -> None:
    page = graph([job(0, name=None, parameters={"prompt": '<script>"alert"</script>'})])
    assert "<script>" not in page
    assert 'title="&lt;script&gt;&quot;' in page


def test_a_plot_has_a_bar_for_each_stage_of_each_attempt() -> None:
    def stage(name: str, begin: float, end: float | None) -> StageRecord:
        ended = None if end is None else NOW + timedelta(seconds=end)
        return StageRecord(name=name, began_at=NOW + timedelta(seconds=begin), ended_at=ended, done=2, total=4)

    def attempt(epoch: int, at: float, end: float | None, *stages: StageRecord) -> AttemptRecord:
        values: dict[str, Any] = {"epoch": epoch, "owner": "o", "worker": None, "started_at": None, "error_kind": None}
        values |= {"claimed_at": NOW + timedelta(seconds=at), "message": "gone", "stages": stages}
        values |= {"ended_at": None if end is None else NOW + timedelta(seconds=end)}
        return AttemptRecord.model_validate(values | {"state": None if end is None else JobState.QUEUED})

    first = attempt(1, 0, 4, stage("load", 0, 1), stage("step", 1, 4))
    second = attempt(2, 10, None, stage("step", 11, None))
    figure = plot([first, second], NOW + timedelta(seconds=15))
    load, step, ends = figure.data
    assert (load.name, list(load.base), list(load.x)) == ("Load", [0.0], [1.0])
    assert (step.name, list(step.base), list(step.x)) == ("Steps", [1.0, 11.0], [3.0, 4.0])
    assert step.customdata[1] == "Steps 4.0 s, 2 of 4"
    assert (list(ends.x), list(ends.y)) == ([4.0], ["Attempt 1 "])
