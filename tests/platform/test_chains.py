"""Chains that ship are ones that the gateway takes; and what fits where is told by media types alone."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel

from perrin import plugins
from perrin.chains import chains, fitting, place
from perrin.inputs import Input, check_type, put, takes
from perrin.modality import validate
from perrin.wire import GroupSubmission, ModalityInfo


@pytest.mark.parametrize("chain", chains().values(), ids=chains().keys())
def test_a_chain_that_ships_fits_together(chain: object) -> None:
    faces = plugins.modalities()
    jobs = {job.name: job for job in GroupSubmission(jobs=list(chain.jobs), label=chain.label).jobs}  # type: ignore[attr-defined]
    if {job.modality for job in jobs.values()} - faces.keys():
        pytest.skip("a modality that is not installed")
    before: list[str | None] = []
    for name, job in jobs.items():
        face, values = faces[job.modality], dict(job.parameters)
        for parent in job.parents:
            assert parent.job in before
            accepts = takes(face.input_schema, str(parent.parameter), values)
            assert accepts is not None
            other = faces[jobs[parent.job].modality]
            kind = other.formats[0] if jobs[parent.job].format is None else other.format(str(jobs[parent.job].format))
            check_type(str(parent.parameter), accepts, kind.media_type, "what it makes")
            values = put(values, str(parent.parameter), "0" * 32)
        validate(face, values)
        before.append(name)


def test_chains_that_need_what_is_not_there_are_left_out() -> None:
    assert chains([]) == {}
    assert set(chains(["molecule", "video"])) == {"molecule"}
    assert set(chains()) == {"turntable", "sound", "molecule"}


class Asked(BaseModel):
    picture: Annotated[str, Input("image/*")] | None = None
    films: list[Annotated[str, Input("video/*", "image/gif")]] = []
    words: str = ""


def test_the_first_type_that_fits_goes_where_it_is_named() -> None:
    info = ModalityInfo(
        name="film", title="Film", summary="", view="video", formats=[], media_types=[], default_model="",
        parameters=Asked.model_json_schema(),
    )  # fmt: skip

    def found(*media_types: str) -> str | None:
        field = place(media_types, info)
        return field and field.name

    assert found("image/png") == "picture"
    assert found("image/gif") == "films"
    assert found("model/ply", "image/gif", "image/png") == "films"
    assert found("image/png", "image/gif") == "picture"
    assert found("video/mp4") == "films"
    assert found("model/ply") is None
    assert fitting(["video/mp4", "image/gif", "image/webp"], ["image/*"]) == [1, 2]
