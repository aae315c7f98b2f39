"""Pictures from pictures on a whole platform: by the API, the SDK, the command line and chains, as without one."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import UNET, write_model

import perrin
from perrin.cli import main
from perrin.client import Client
from perrin.errors import InvalidInput, JobFailed

FEW: dict[str, Any] = {"steps": 4, "sampler": "ddim", "seed": 7}


@pytest.fixture(scope="module")
def apple() -> bytes:
    return perrin.load("image", device="cpu")("red apple", **FEW)[0].bytes()


@pytest.fixture(scope="module")
def mask() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.repeat(np.uint8([255, 0]), 32)[:, None].repeat(64, 1)).save(stream, "PNG")
    return stream.getvalue()


def test_every_way_in_gives_the_same_bytes(
    client: Client, apple: bytes, mask: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"prompt": "(green:1.2) pear", "image": apple, "mask": mask, "background": "#ffeeaa", **FEW}
    here = perrin.load("image", device="cpu")(format="webp", **asked).files[0].data
    job = client.submit("image", format="webp", **asked)
    job.wait(90)
    (artifact,) = job.artifacts
    assert artifact.bytes() == here
    assert (artifact.record.media_type, artifact.metadata["parameters"]["background"]) == ("image/webp", "#ffeeaa")

    (tmp_path / "apple.png").write_bytes(apple)
    (tmp_path / "mask.png").write_bytes(mask)
    line = f"--image {tmp_path}/apple.png --mask {tmp_path}/mask.png --background #ffeeaa --seed 7 --steps 4"
    words = ["submit", "image", "(green:1.2) pear", "--sampler", "ddim", *line.split(), "--out", f"{tmp_path}/a.webp"]
    assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "a.webp").read_bytes() == here


def test_a_picture_goes_on_to_the_next_job(client: Client) -> None:
    group = client.submit_group(
        [
            {"modality": "image", "name": "first", "format": "jpg", "parameters": {"prompt": "red apple", **FEW}},
            {
                "modality": "image",
                "parameters": {**FEW, "strength": 0},
                "parents": [{"job": "first", "parameter": "image"}],
            },
        ]
    )
    assert group.wait(90).states == {"succeeded": 2}
    first, second = (Image.open(io.BytesIO(job.artifacts[0].bytes())) for job in group.jobs)
    assert (np.asarray(first) == np.asarray(second)).all()


def test_morphs_say_where_each_item_is(client: Client) -> None:
    job = client.submit("image", prompt="red apple", morph="pear", count=3, **FEW)
    job.wait(90)
    made = [artifact.metadata["parameters"] for artifact in job.artifacts]
    assert [(values["blend"], values["seed"], values["count"]) for values in made] == [
        (0, 7, 1), (0.5, 7, 1), (1, 7, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("size", [256, "96x64"])
def test_sizes_are_made_as_without_a_platform(client: Client, size: Any) -> None:
    asked = {"prompt": "pear", "size": size, **FEW}
    here = perrin.load("image", device="cpu")(**asked)
    job = client.submit("image", **asked)
    job.wait(90)
    assert job.artifacts[0].bytes() == here.files[0].data
    assert job.artifacts[0].metadata == here[0].metadata
    assert job.record.parameters["size"] == size


@pytest.mark.parametrize(("fill", "message"), [(float("nan"), "NaN or infinity"), (-1.0, "one flat colour")])
def test_a_black_or_nan_picture_fails_as_degenerate(client: Client, fill: float, message: str) -> None:
    name = f"broken-{message[:3].lower()}"
    models = Path(os.environ["PERRIN_HOME"], "models")
    write_model(models, name, {"unet": {**UNET, "channels": 3}}, fill=fill, prediction="x0")
    job = client.submit("image", model=name)
    with pytest.raises(JobFailed, match=message):
        job.wait(90)
    error = job.refresh().error
    assert (job.state, error and error.kind) == ("failed", "degenerate")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "prompt: got None, wanted a value: it is required, unless there is an image"),
        ({"prompt": "pear", "strength": 0.5}, "strength: got 0.5, wanted an image as well"),
        ({"prompt": "pear", "background": "transparent", "format": "jpg"}, "format: got 'jpg', wanted png or webp"),
        ({"prompt": "pear", "size": "64*64"}, "size: got '64*64', wanted a side of 16 to 4096 pixels, or two"),
        ({"prompt": "pear", "size": 100}, "size: got 100, wanted one of 64, 256, 96x64"),
        ({"prompt": "a (b:9) c"}, "prompt: got 'a (b:9) c', wanted weights from 0 to 2"),
        ({"prompt": "pear", "image": b"words"}, "wanted image/*: this is text/plain"),
    ],
)
def test_what_is_wrong_is_said_before_there_is_a_job(client: Client, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.submit("image", **values)
    assert message in str(caught.value)


def test_a_broken_picture_fails_its_job_in_one_line(client: Client, apple: bytes) -> None:
    job = client.submit("image", image=apple[:900], **FEW)
    with pytest.raises(JobFailed, match="image: got 'image/png', wanted a whole picture") as caught:
        job.wait(90)
    assert "\n" not in str(caught.value)
