"""Files that jobs take in, on a whole platform: by a group, the SDK, the command line, and with no platform at all."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from platforms import PATIENCE, Platform, running

import perrin
from perrin.cli import main
from perrin.client import Client
from perrin.errors import InvalidInput, JobFailed

SQUARE = bytes(255 if 8 < x < 24 and 8 < y < 24 else 0 for x in range(32) for y in range(32))
RING = b"P5\n# by hand\n32 32\n255\n" + SQUARE


@pytest.fixture(scope="module")
def platform(dots: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, running(home, lease_seconds=5.0, save_seconds=0.1) as made:
        made.announce(patch)
        yield made


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "ring.jpg"  # what it is called means nothing
    path.write_bytes(RING)
    return path


def pixels(picture: bytes) -> bytes:
    return picture.partition(b"\n32 32\n255\n")[2]


def test_a_childs_picture_is_made_of_its_parents(platform: Platform) -> None:
    with Client() as client:
        group = client.submit_group(
            [
                {"modality": "dots", "name": "first", "parameters": {"seed": 3, "radius": 14}},
                {
                    "modality": "dots",
                    "parameters": {"seed": 4, "radius": 2},
                    "parents": [{"job": "first", "parameter": "start"}],
                },
            ]
        )
        assert group.wait(60).states == {"succeeded": 2}
        parent, child = (job.artifacts[0] for job in group.jobs)
        alone = client.submit("dots", seed=4, radius=2)
        alone.wait(60)
        assert pixels(alone.artifacts[0].bytes()) != pixels(child.bytes())
        by_hand = client.submit("dots", seed=4, radius=2, start=parent)
        by_hand.wait(60)
        assert by_hand.artifacts[0].bytes() == child.bytes()
        assert by_hand.record.parameters["start"] == parent.id
        assert child.metadata["parameters"]["start"] == f"sha256:{parent.record.sha256}"


def test_the_same_request_gives_the_same_bytes_with_a_platform_and_without(platform: Platform, ring: Path) -> None:
    with Client() as client:
        job = client.submit("dots", seed=5, count=2, start=ring, more=[RING, ring])
        job.wait(60)
        there = [artifact.bytes() for artifact in job.artifacts]
    here = perrin.load("dots", device="cpu")
    for start in (ring, str(ring), RING):
        made = here(seed=5, count=2, start=start, more=[ring, RING])
        assert [file.data for file in made.files] == there
    assert made[1].bytes() == there[1]
    assert pixels(here(seed=5, count=2).files[0].data) != pixels(there[0])


def test_the_command_line_uploads_and_generates(
    platform: Platform, ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        f"generate dots --seed 5 --start {ring} --out {tmp_path}/here.pgm --device cpu",
        f"submit dots --seed 5 --start {ring} --out {tmp_path}/there.pgm",
    ):
        assert main(shlex.split(line)) == 0, capsys.readouterr().err
    assert (tmp_path / "here.pgm").read_bytes() == (tmp_path / "there.pgm").read_bytes()
    capsys.readouterr()
    with Client() as client:
        given = client.upload(ring).id
    assert main(shlex.split(f"submit dots --seed 5 --start {given} --out {tmp_path}/again.pgm")) == 0
    assert (tmp_path / "again.pgm").read_bytes() == (tmp_path / "there.pgm").read_bytes()
    shutil.copy(ring, tmp_path / "beside.pgm")
    jobs = "jobs:\n  - {modality: dots, parameters: {seed: 5, start: beside.pgm, more: [beside.pgm]}}\n"
    (tmp_path / "group.yaml").write_text(jobs)
    capsys.readouterr()
    assert main(["group", "submit", str(tmp_path / "group.yaml"), "--wait"]) == 0
    with Client() as client:
        (job,) = client.group(capsys.readouterr().out.strip()).jobs
        assert (job.record.state, job.record.parameters["start"]) == ("succeeded", given)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("submit dots --start nothing.pgm", "start: got 'nothing.pgm', wanted a file that can be read"),
        ("submit dots --start {text}", "start: got '{id}', wanted image/x-portable-graymap: this is text/plain"),
        ("submit dots --start {empty}", "wanted a file with something in it"),
        ("submit dots --start 00000000000000000000000000000000", "wanted the id of one of your artifacts or uploads"),
        ("generate dots --start nothing.pgm --out x.pgm", "start: got 'nothing.pgm', wanted a file that can be read"),
        ("generate dots --start {text} --out x.pgm", "wanted image/x-portable-graymap: this is text/plain"),
        ("generate dots --more {broken} --out x.pgm", "more.0: got 'a file of 12 bytes', wanted a PGM picture of 32"),
    ],
)
def test_a_wrong_file_is_one_line(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    names = {name: tmp_path / name for name in ("text", "empty", "broken")}
    for name, data in (("text", b"words"), ("empty", b""), ("broken", b"P5\n1 1\n255\nx")):
        names[name].write_bytes(data)
    with Client() as client:
        given = client.upload(b"words").id
    assert main(shlex.split(line.format(**names))) == 2
    error = capsys.readouterr().err
    assert words.format(id=given) in error, error
    assert len(error.strip().splitlines()) == 1


def test_text_is_never_taken_for_a_path_by_the_sdk(platform: Platform, ring: Path) -> None:
    with Client() as client:
        with pytest.raises(InvalidInput, match="the id of one of your artifacts or uploads"):
            client.submit("dots", start=str(ring))
        job = client.submit("dots", start=b"P5\n1 1\n255\nx")
        with pytest.raises(JobFailed, match="wanted a PGM picture of 32 by 32 pixels"):
            job.wait(60)
        assert job.refresh().error is not None
        assert (job.record.error.kind, job.record.attempts) == ("invalid", 1)  # type: ignore[union-attr]


def test_a_killed_engine_reads_the_files_again_and_ends_with_the_same_bytes(platform: Platform, ring: Path) -> None:
    with Client() as client:
        given = client.upload(ring).id
    asked = {"steps": 40, "delay": 0.1, "start": given}
    undisturbed = platform.bytes(platform.wait(platform.submit(**asked), "succeeded"))
    job_id = platform.submit(**asked)
    platform.at_step(job_id, 8)
    end = time.monotonic() + PATIENCE
    while not platform.client.get(f"/jobs/{job_id}/preview").content.startswith(b"\x89PNG"):
        assert time.monotonic() < end
        time.sleep(0.02)
    platform.engine().kill()
    job = platform.wait(job_id, "succeeded")
    assert platform.tries(job) == 2
    assert platform.bytes(job) == undisturbed


def test_a_file_that_was_changed_is_refused_when_the_job_begins(platform: Platform) -> None:
    with Client() as client:
        record = client.upload(RING + b"\n")
    sha256 = record.sha256
    path = platform.home / "artifacts" / "blobs" / sha256[:2] / sha256[2:4] / sha256
    path.write_bytes(RING)
    job_id = platform.submit(start=record.id)
    again = platform.wait(job_id, "waiting")
    assert again.error is not None
    assert again.error.kind == "storage"
    assert "has changed" in again.error.message
    path.write_bytes(RING + b"\n")
    platform.client.post(f"/jobs/{job_id}/cancel").raise_for_status()
