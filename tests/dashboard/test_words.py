from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perrin.wire import JobRecord, JobState, ProgressRecord
from perrin_dashboard.words import BADGES, ago, facts, fraction, happening, parameter_list, prompt_of, took

NOW = datetime.now(UTC)


def record(**changes: Any) -> JobRecord:
    values: dict[str, Any] = {
        "id": "job",
        "user": "me",
        "modality": "dots",
        "model": "dots-8",
        "parameters": {"prompt": "a dot", "seed": 7},
        "format": "png",
        "label": "",
        "priority": 0,
        "state": "queued",
        "cancel_requested": False,
        "progress": None,
        "position": None,
        "attempts": 0,
        "epoch": 0,
        "worker": None,
        "error": None,
        "artifacts": [],
        "created_at": NOW,
        "started_at": None,
        "finished_at": None,
    }
    return JobRecord.model_validate(values | changes)


def step(done: int, stage: str = "step", total: int = 20) -> ProgressRecord:
    return ProgressRecord(stage=stage, done=done, total=total)


def test_every_state_has_a_badge_and_words() -> None:
    for state in JobState:
        assert BADGES[state][0]
        assert happening(record(state=state))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": 0}, "Next in line"),
        ({"position": 1}, "In the queue, 1 job before it"),
        ({"position": 3}, "In the queue, 3 jobs before it"),
        ({"state": "running", "progress": step(7)}, "Step 7 of 20"),
        ({"state": "running", "progress": step(0, "load", 1)}, "Loading the model"),
        ({"state": "running", "progress": step(2, "untangle", 5)}, "Untangle, 2 of 5"),
        ({"state": "running", "cancel_requested": True}, "Stopping"),
    ],
)
def test_what_happens_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    assert happening(record(**changes)) == words


def test_the_bar_never_goes_back() -> None:
    stages = ("load", "encode", "step", "decode", "write")
    bar = [fraction(record(state="running", progress=step(d, s, 3))) for s in stages for d in range(4)]
    assert bar == sorted(bar)
    assert (bar[0], bar[-1]) == (0.0, 1.0)
    assert fraction(record()) == 0.0
    assert fraction(record(state="succeeded")) == 1.0


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return NOW

    monkeypatch.setattr("perrin_dashboard.words.datetime", Clock)
    spans = (("just now", 1), ("30 seconds ago", 30), ("1 minute ago", 61), ("2 hours ago", 7300), ("3 days ago", 3e5))
    for words, seconds in spans:
        assert ago(NOW - timedelta(seconds=seconds)) == words
    assert ago((NOW - timedelta(seconds=61)).replace(tzinfo=None)) == "1 minute ago"
    assert took(record()) == ""
    assert took(record(started_at=NOW, finished_at=NOW + timedelta(seconds=3.21))) == "3.2 s"
    assert took(record(started_at=NOW, finished_at=NOW + timedelta(seconds=125))) == "2 min 5 s"


def test_a_job_is_called_by_its_prompt_else_its_label() -> None:
    assert prompt_of(record()) == "a dot"
    assert prompt_of(record(parameters={}, label="mine")) == "mine"
    assert prompt_of(record(parameters={})) == "dots"
    assert facts(record()) == "dots-8 · seed 7"


def test_parameters_cannot_write_html() -> None:
    shown = parameter_list({"prompt": "<script>", "empty": None}, {"prompt": "<b>"})
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "empty" not in shown
