from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dots
import pytest
from gateway import KEY, NOW, Gateway
from streamlit.testing.v1 import AppTest

import perrin_dashboard
from perrin import transport
from perrin.modality import Format, View
from perrin.wire import (
    AttemptRecord,
    GroupRecord,
    JobState,
    Parent,
    PoolRecord,
    ProgressRecord,
    StageRecord,
    Submission,
    UserRecord,
    WorkerRecord,
)
from perrin_dashboard.connection import _worker_names, artifact_bytes, client, modalities, models

APP = str(Path(perrin_dashboard.__file__).with_name("app.py"))
CARD = WorkerRecord(
    id="worker-1",
    host="box",
    device="cpu",
    pool="cpu",
    state="idle",
    jobs=[],
    models=["dots-8"],
    started_at=NOW,
    seen_at=NOW,
    finished_jobs=3,
    memory_mb=512.0,
    cpu_percent=50.0,
)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    # AppTest leaves the page behind as __main__, which a process spawned by a later test would import.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    dots.install(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(transport, "PAUSES", (0.01,))
    for cached in (client, modalities, models, artifact_bytes, _worker_names):
        cached.clear()
    with Gateway() as running:
        monkeypatch.setenv("PERRIN_URL", running.url)
        monkeypatch.setenv("PERRIN_API_KEY", KEY)
        yield running
        client().close()


def opened(page: str = "", job: str | None = None, group: str | None = None) -> AppTest:
    """The dashboard, or one page of it, as a fresh visitor sees it."""
    script = f"from perrin_dashboard import {page}\n{page}.page()\n"
    app = AppTest.from_string(script) if page else AppTest.from_file(APP)
    app.default_timeout = 120
    if job is not None:
        app.query_params["job"] = job
    if group is not None:
        app.query_params["group"] = group
    app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    """Everything that can be read."""
    parts = [element.proto.body for element in app.get("html")]
    parts += [str(element.value) for kind in ("markdown", "caption", "title", "subheader") for element in app.get(kind)]
    parts += [str(element.value) for kind in ("warning", "error", "info") for element in app.get(kind)]
    return "\n".join(parts)


def made(gateway: Gateway, **parameters: object) -> str:
    submission = Submission(modality="dots", parameters={"prompt": "a dot", **parameters})
    job = gateway.submit(submission, None)
    gateway.run(job.id)
    return job.id


def test_a_prompt_becomes_a_job_and_a_picture(gateway: Gateway) -> None:
    app = opened()
    assert "Your result appears here" in words(app)
    app.text_area[0].set_value("a dot")
    app.number_input(key="form/dots/seed").set_value(7)
    app.selectbox(key="form/dots/shape").set_value("square")
    app.toggle(key="form/dots/bright").set_value(True)
    app.text_input(key="form/dots/layers").set_value("1, 2")
    gateway.workers.append(CARD)
    app.button(key="generate").click()
    app.run()
    assert not app.exception
    record = gateway.jobs["job0"]
    asked = {"prompt": "a dot", "seed": 7, "shape": "square", "bright": True, "layers": [1, 2], "count": 1}
    assert {name: record.parameters[name] for name in asked} == asked
    assert "Next in line" in words(app)
    gateway.run("job0")
    app.run()
    assert "made by box (cpu)" in words(app)
    assert app.image
    assert not app.error


def test_refusals_are_in_words_and_name_the_field(gateway: Gateway) -> None:
    app = opened()
    app.button(key="generate").click()
    app.run()
    assert "Write a prompt first" in words(app)
    app.text_area[0].set_value("a dot")
    app.text_input(key="form/dots/layers").set_value("one")
    app.button(key="generate").click()
    app.run()
    assert "layers" in app.error[0].value
    assert not gateway.jobs


def test_an_example_fills_the_form(gateway: Gateway) -> None:
    app = opened()
    app.pills(key="examples").set_value("two dots")
    app.run()
    assert app.text_area[0].value == "two dots"


def test_a_refresh_comes_back_to_the_job_and_its_prompt(gateway: Gateway) -> None:
    job = gateway.submit(Submission(modality="dots", parameters={"prompt": "far", "size": 16, "seed": 3}), None)
    gateway.happen(job.id, JobState.RUNNING, ProgressRecord(stage="step", done=2, total=5), worker="worker-1")
    gateway.previews[job.id] = dots.png({})
    app = opened(job=job.id)
    assert app.text_area[0].value == "far"
    assert app.number_input(key="form/dots/size").value == 16
    assert app.number_input(key="form/dots/seed").value is None
    assert app.image
    assert "Step 2 of 5" in str(app.get("progress")[0].proto.text)
    app.button(key="cancel-job").click()
    app.run()
    assert gateway.jobs[job.id].state is JobState.CANCELLED
    app.run()
    assert "Cancelled" in words(app)


def test_again_draws_another_seed_and_use_fills_the_form(gateway: Gateway) -> None:
    job_id = made(gateway, seed=5, size=32)
    app = opened(job=job_id)
    app.button(key="use").click()
    app.run()
    assert app.number_input(key="form/dots/seed").value == 5
    assert app.number_input(key="form/dots/size").value == 32
    app.button(key="again").click()
    app.run()
    assert len(gateway.jobs) == 2
    assert gateway.jobs["job1"].parameters["size"] == 32
    assert not app.exception


def test_a_failure_says_why_and_what_to_do(gateway: Gateway) -> None:
    job = gateway.submit(Submission(modality="dots", parameters={"prompt": "a dot"}), None)
    gateway.fail(job.id, "the picture is black")
    assert "The picture is black. Another seed usually helps." in words(opened(job=job.id))


def test_an_unknown_job_is_said_to_be_so(gateway: Gateway) -> None:
    assert "no job with this id" in words(opened(job="nope"))


def test_empty_pages_lead_to_the_first_result(gateway: Gateway) -> None:
    for page, text in {
        "jobs": "No jobs yet",
        "gallery": "The gallery is empty",
        "workers": "No workers",
        "groups": "No groups yet",
        "pools": "No pools yet",
    }.items():
        app = opened(page)
        assert text in words(app)
        if page in ("jobs", "gallery"):
            assert "dots" in app.button(key="make-first").label


def test_jobs_are_listed_found_and_opened(gateway: Gateway) -> None:
    first = made(gateway, prompt="a <b>red</b> dot")
    made(gateway, prompt="a blue dot")
    app = opened("jobs")
    assert "a &lt;b&gt;red&lt;/b&gt; dot" in words(app)
    assert "a blue dot" in words(app)
    app.text_input(key="jobs-search").set_value("red")
    app.run()
    assert "a blue dot" not in words(app)
    app.text_input(key="jobs-search").set_value("green")
    app.run()
    assert "Nothing found" in words(app)
    app.text_input(key="jobs-search").set_value("")
    app.run()
    app.button(key=f"open-{first}").click()
    app.run()
    assert not app.exception
    assert first in words(app)
    assert "Size" in words(app)
    assert "No worker has had it yet." in words(app)


def test_the_gallery_shows_every_item(gateway: Gateway) -> None:
    made(gateway, count=3, prompt="three dots")
    app = opened("gallery")
    assert len(app.image) == 3
    app.text_input(key="gallery-search").set_value("none")
    app.run()
    assert "Nothing found" in words(app)


def test_workers_show_what_they_do(gateway: Gateway) -> None:
    job = gateway.submit(Submission(modality="dots", parameters={"prompt": "a dot"}), None)
    gateway.happen(job.id, JobState.RUNNING, ProgressRecord(stage="step", done=1, total=4))
    gateway.workers.append(CARD.model_copy(update={"state": "busy", "jobs": [job.id]}))
    gateway.workers.append(CARD.model_copy(update={"id": "worker-2", "host": "far", "state": "lost"}))
    app = opened("workers")
    text = words(app)
    assert "box" in text
    assert "dots-8" in text
    assert "Lost" in text
    assert [metric.value for metric in app.metric[:4]] == ["1", "1", "1", "6"]
    assert "a dot: Step 1 of 4" in str(app.get("progress")[0].proto.text)


@pytest.mark.parametrize("view", [View.POINTS, View.TABLE, View.FILE])
def test_a_result_of_another_kind_can_be_downloaded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, view: View
) -> None:
    face = dots.face
    formats = (Format("csv", "text/csv"),)
    gateway.faces = {"dots": type(face)(**{**face.__dict__, "view": view, "formats": formats})}
    monkeypatch.setattr(gateway, "draw", lambda record, item: b"a,b\n1,2\n")
    monkeypatch.setattr(gateway, "media_type", "text/csv")
    app = opened(job=made(gateway))
    assert len(app.get("download_button")) == 1
    assert bool(app.dataframe) == (view is View.TABLE)
    assert ("0.csv" in words(app)) == (view is not View.TABLE)
    opened("gallery")
    opened("jobs")


def test_results_that_changed_are_not_shown(gateway: Gateway) -> None:
    job_id = made(gateway)
    gateway.files[f"{job_id}-0"] += b"!"
    app = opened(job=job_id)
    assert "SHA-256" in words(app)
    assert not app.image


def test_a_platform_that_is_away_is_waited_for(gateway: Gateway) -> None:
    gateway.refuse = 3
    app = opened()
    assert "The platform is not answering" in words(app)
    app.run()
    assert "The platform is not answering" not in words(app)


def test_a_wrong_key_is_said_to_be_so(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRIN_API_KEY", "wrong")
    app = AppTest.from_file(APP, default_timeout=120).run()
    assert "does not accept this dashboard's API key" in words(app)


def attempt(epoch: int, at: float, state: JobState | None, **more: object) -> AttemptRecord:
    began = NOW + timedelta(seconds=at)
    values: dict[str, object] = {"owner": "o", "worker": "worker-1", "error_kind": None, "message": ""}
    values |= {"claimed_at": began, "started_at": began, "ended_at": began + timedelta(seconds=2)}
    stage = StageRecord(name="step", began_at=began, ended_at=None, done=1, total=4)
    values |= {"stages": [stage], "gpu_seconds": 1.5, **more}
    return AttemptRecord.model_validate({"epoch": epoch, "state": state, **values})


def test_a_history_shows_attempts_their_ends_and_their_energy(gateway: Gateway) -> None:
    job = gateway.submit(Submission(modality="dots", parameters={"prompt": "a dot"}), None)
    gateway.fail(job.id, "it crashed")
    gateway.workers.append(CARD)
    gateway.attempts[job.id] = [
        attempt(1, 0, JobState.QUEUED, message="its process ended: <killed>", error_kind="crash"),
        attempt(2, 5, JobState.FAILED, message="no", joules=1234.5),
    ]
    app = opened("jobs", job=job.id)
    text = words(app)
    assert "Taken back" in text
    assert "its process ended: &lt;killed&gt;" in text
    assert "box (cpu) · 2.0 s · 1.5 s of the device · 1.23 kJ" in text
    assert len(app.get("plotly_chart")) == 1


def test_a_job_shows_what_it_waits_for_and_what_waits_for_it(gateway: Gateway) -> None:
    submission = Submission(modality="dots", parameters={"prompt": "a dot"})
    first, second, third = (gateway.submit(submission, None).id for _ in range(3))
    edges = {"parents": [Parent(job=first, parameter="prompt"), Parent(job="gone")], "children": [third]}
    gateway.jobs[second] = gateway.jobs[second].model_copy(update=edges)
    app = opened("jobs", job=second)
    assert "gone is no longer kept" in words(app)
    assert "its prompt" in app.button(key=f"to-{first}").label
    app.button(key=f"to-{third}").click()
    app.run()
    assert app.query_params["job"] == third


def test_dead_letters_are_listed_and_tried_again(gateway: Gateway) -> None:
    made(gateway, prompt="good")
    bad = gateway.submit(Submission(modality="dots", parameters={"prompt": "bad"}), None)
    gateway.fail(bad.id, "no luck")
    app = opened("jobs")
    app.selectbox(key="jobs-state").set_value("Dead letters")
    app.run()
    assert "good" not in words(app)
    assert "degenerate: no luck" in words(app)
    app.button(key=f"retry-{bad.id}").click()
    app.run()
    assert gateway.jobs["job2"].retry_of == bad.id
    assert app.query_params["job"] == "job2"
    assert "Another try of" in words(app)


def test_groups_are_listed_and_drawn(gateway: Gateway) -> None:
    submission = Submission(modality="dots", parameters={"prompt": "a <dot>"})
    jobs = [gateway.submit(submission, None) for _ in range(2)]
    jobs[1] = jobs[1].model_copy(update={"parents": [Parent(job=jobs[0].id, parameter="prompt")], "name": "second"})
    states = {JobState.QUEUED: 1, JobState.WAITING: 1}
    gateway.groups["g"] = GroupRecord(id="g", label="a pair", created_at=NOW, states=states, jobs=jobs)
    app = opened("groups")
    assert "a pair" in words(app)
    assert "1 waiting, 1 queued" in words(app)
    app = opened("groups", group="g")
    assert 'alt="1 dependency"' in words(app)
    assert "<strong>a &lt;dot&gt;</strong>" in words(app)
    assert "<strong>second</strong>" in words(app)
    assert "no group with this id" in words(opened("groups", group="nope"))


def test_pools_are_switched_by_operators_alone(gateway: Gateway) -> None:
    states = {JobState.QUEUED: 3, JobState.RUNNING: 2}
    gateway.pools["dots"] = PoolRecord(name="dots", state="open", reason="", changed_at=NOW, states=states)
    app = opened("pools")
    assert [metric.value for metric in app.metric] == ["3", "2", "0"]
    app.text_input(key="why-dots").set_value("too <hot>")
    app.button(key="pause-dots").click()
    app.run()
    assert (gateway.pools["dots"].state, gateway.pools["dots"].reason) == ("paused", "too <hot>")
    app.run()
    assert "too &lt;hot&gt;" in words(app)
    assert app.button(key="pause-dots").disabled
    gateway.user = UserRecord(name="me", operator=False)
    app = opened("pools")
    assert not app.button
    assert "Only an operator may" in words(app)
