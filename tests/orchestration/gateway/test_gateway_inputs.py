"""Uploads, and jobs that take files in, over real HTTP: each refusal its own line, and nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, error, serve, submit

from perrin import wire
from perrin.settings import Settings

PICTURE = b"P5\n32 32\n255\n" + bytes(range(256)) * 4


@pytest.fixture(scope="module")
def served(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(Settings(home=tmp_path_factory.mktemp("home"), min_free_mb=0, max_upload_mb=2))


def upload(client: httpx.Client, data: bytes = PICTURE) -> wire.UploadRecord:
    answer = client.post("/uploads", content=data)
    assert answer.status_code == 201, answer.text
    return wire.UploadRecord(**answer.json())


def artifact(served: Served, client: httpx.Client, **asked: Any) -> str:
    client.post("/jobs", json={"modality": "dots", **asked}).raise_for_status()
    return str(client.get(f"/jobs/{served.run().id}").json()["artifacts"][0]["id"])


def test_a_file_is_uploaded_once_and_is_what_its_bytes_say(ann: httpx.Client, bob: httpx.Client) -> None:
    answer = ann.post("/uploads", content=PICTURE, headers={"Content-Type": "video/mp4"})
    first = wire.UploadRecord(**answer.json())
    assert (first.media_type, first.size) == ("image/x-portable-graymap", len(PICTURE))
    assert first.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert upload(ann).id == first.id
    assert upload(bob).id != first.id
    assert answer.headers["location"] == f"/v1/artifacts/{first.id}"
    read = ann.get(f"/artifacts/{first.id}")
    assert (read.content, read.headers["content-type"]) == (PICTURE, "image/x-portable-graymap")
    assert f"upload-{first.id}" in read.headers["content-disposition"]
    assert bob.get(f"/artifacts/{first.id}").status_code == 404


def test_jobs_take_uploads_and_artifacts_in(served: Served, ann: httpx.Client) -> None:
    given, made = upload(ann).id, artifact(served, ann)
    job = submit(ann, start=given, more=[made, given])
    assert (job["parameters"]["start"], job["parameters"]["more"]) == (given, [made, given])


def test_an_upload_wants_a_key_before_its_body(served: Served) -> None:
    with httpx.Client(base_url=served.url + "/v1", trust_env=False, timeout=60) as nobody:
        answer = nobody.post("/uploads", content=PICTURE)
        assert (answer.status_code, error(answer)["kind"]) == (401, "NotAllowed")


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("size", [0, (2 << 20) + 1, 9 << 20])
def test_an_empty_or_oversized_upload_is_one_line(ann: httpx.Client, size: int, announced: bool) -> None:
    content: Any = b"x" * size if announced else (b"x" * (1 << 16) for _ in range(-(-size // (1 << 16))))
    answer = ann.post("/uploads", content=content)
    told = error(answer)
    assert (answer.status_code, told["field"]) == (422, "file")
    assert ("a file with something in it" if size == 0 else "more than 2 MiB") in told["message"]


def test_an_upload_of_just_the_limit_is_taken(ann: httpx.Client) -> None:
    assert upload(ann, b"x" * (2 << 20)).size == 2 << 20


def test_a_file_that_will_not_do_is_one_line_and_nothing_is_stored(
    served: Served, ann: httpx.Client, bob: httpx.Client
) -> None:
    text, foreign = upload(ann, b"some text").id, upload(bob).id
    foreign_made = artifact(served, bob)
    unknown = "0" * 32
    wanted = "the id of one of your artifacts or uploads"
    before = [row[:3] for row in served.store.counts()]
    told = {}
    for name, parameters, field, words in (
        ("unknown", {"start": unknown}, "start", wanted),
        ("foreign", {"start": foreign}, "start", wanted),
        ("foreign artifact", {"start": foreign_made}, "start", wanted),
        ("in a list", {"more": [unknown]}, "more.0", wanted),
        ("type", {"start": text}, "start", "image/x-portable-graymap: this is text/plain"),
        ("type of a kind", {"more": [text]}, "more.0", "image/x-portable-*: this is text/plain"),
        ("path", {"start": "/etc/passwd"}, "start", wanted),
        ("no text", {"start": 3}, "start", "string"),
        ("no list", {"more": text}, "more", "list"),
    ):
        answer = ann.post("/jobs", json={"modality": "dots", "parameters": parameters})
        told[name] = error(answer)
        assert (answer.status_code, told[name]["field"]) == (422, field), answer.text
        assert words in told[name]["message"], name
    assert told["foreign"]["message"].replace(foreign, unknown) == told["unknown"]["message"]
    assert [row[:3] for row in served.store.counts()] == before


def test_a_parent_must_make_what_its_child_takes(served: Served, ann: httpx.Client) -> None:
    text = ann.post("/jobs", json={"modality": "dots", "format": "txt"}).json()["id"]
    picture = submit(ann)["id"]
    dot = {"modality": "dots"}
    for parents, field, words in (
        ([{"job": text, "parameter": "start"}], "start", "image/x-portable-graymap: this is text/plain"),
        ([{"job": picture, "parameter": "more.1"}], "parents.parameter", "a file: start, more"),
        ([{"job": picture, "parameter": "start"}] * 2, "start", "takes what job"),
    ):
        answer = ann.post("/jobs", json=dot | {"parents": parents})
        assert (answer.status_code, error(answer)["field"]) == (422, field), answer.text
        assert words in error(answer)["message"]
    both = [{"job": picture, "parameter": "more.0"}, {"job": picture, "parameter": "more.1"}]
    ann.post("/jobs", json=dot | {"parents": both}).raise_for_status()
    group = [dot | {"name": "a", "format": "txt"}, dot | {"parents": [{"job": "a", "parameter": "start"}]}]
    answer = ann.post("/groups", json={"jobs": group})
    assert (answer.status_code, error(answer)["field"]) == (422, "jobs.1.start")
    assert "what job a makes" in error(answer)["message"]


def test_a_child_is_fed_at_every_place(served: Served, ann: httpx.Client) -> None:
    given = upload(ann).id
    parent = submit(ann)["id"]
    asked = {"modality": "dots", "parameters": {"more": [given]}}
    asked |= {"parents": [{"job": parent, "parameter": "more.1"}, {"job": parent, "parameter": "start"}]}
    child = ann.post("/jobs", json=asked).json()["id"]
    served.run()
    made = ann.get(f"/jobs/{parent}").json()["artifacts"][0]["id"]
    parameters = ann.get(f"/jobs/{child}").json()["parameters"]
    assert (parameters["start"], parameters["more"]) == (made, [given, made])
