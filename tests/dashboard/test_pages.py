from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dots
import pytest
from gateway import KEY, NOW, Gateway
from streamlit.testing.v1 import AppTest

import perrin_dashboard
from perrin import transport
from perrin.modality import Format, View
from perrin.wire import JobState, ProgressRecord, Submission, WorkerRecord
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
    dots.install(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(transport, "PAUSES", (0.01,))
    for cached in (client, modalities, models, artifact_bytes, _worker_names):
        cached.clear()
    with Gateway() as running:
        monkeypatch.setenv("PERRIN_URL", running.url)
        monkeypatch.setenv("PERRIN_API_KEY", KEY)
        yield running
        client().close()


def opened(page: str = "", job: str | None = None) -> AppTest:
    """The dashboard, or one page of it, as a fresh visitor sees it."""
    script = f"from perrin_dashboard import {page}\n{page}.page()\n"
    app = AppTest.from_string(script) if page else AppTest.from_file(APP)
    app.default_timeout = 20
    if job is not None:
        app.query_params["job"] = job
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
    for page, text in (("jobs", "No jobs yet"), ("gallery", "The gallery is empty"), ("workers", "No workers")):
        app = opened(page)
        assert text in words(app)
        if page != "workers":
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
    assert "Running" in words(app)


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


@pytest.mark.parametrize("view", [View.MOLECULE, View.TABLE, View.FILE])
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
    app = AppTest.from_file(APP, default_timeout=20).run()
    assert "does not accept this dashboard's API key" in words(app)
