"""A chain in the making: what a step is written as, what its removal does to the others, and what is submitted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import streamlit as st
from pydantic import BaseModel

from perrin.inputs import Input
from perrin.wire import ModalityInfo
from perrin_dashboard import chain
from perrin_dashboard.chain import Step
from perrin_dashboard.form import FromStep


class Plain(BaseModel):
    seed: int = 0


class Drawn(BaseModel):
    prompt: str = ""
    like: Annotated[str, Input("image/*")] | None = None
    maps: dict[Literal["edge", "depth"], Annotated[str, Input("image/*")]] = {}


class Moved(BaseModel):
    prompt: str = ""
    frames: list[Annotated[str, Input("image/png")]] = []
    clip: Annotated[str, Input("image/gif", "video/*")] | None = None


def info(name: str, asked: type[BaseModel], **formats: str) -> ModalityInfo:
    return ModalityInfo(
        name=name, title=name.title(), summary="", view="image", formats=[*formats], default_model="",
        media_types=[*formats.values()], parameters=asked.model_json_schema(),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    held: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", held)
    solid = info("solid", Plain, ply="model/ply", gif="image/gif", png="image/png")
    known = [info("drawn", Drawn, webp="image/webp", png="image/png"), info("moved", Moved, mp4="video/mp4"), solid]
    monkeypatch.setattr(chain, "modalities", lambda: known)
    return held


def test_a_step_is_written_in_what_all_who_take_it_can_read() -> None:
    drawn, solid = Step("drawn", {"prompt": "a"}), Step("solid", {})
    (one,) = chain.jobs([drawn])
    assert one == {"modality": "drawn", "name": "1 drawn", "parameters": {"prompt": "a"}, "format": None, "parents": []}
    first, second = chain.jobs([drawn, Step("moved", {"prompt": "b", "frames": [FromStep(1)]})])
    assert first["format"] == "png"
    assert second["parameters"] == {"prompt": "b"}
    assert second["parents"] == [{"job": "1 drawn", "parameter": "frames.0"}]
    assert chain.jobs([solid, Step("moved", {"clip": FromStep(1)})])[0]["format"] == "gif"
    both = [solid, Step("drawn", {"maps": {"edge": FromStep(1)}}), Step("moved", {"frames": [FromStep(1)]})]
    assert chain.jobs(both)[0]["format"] == "png"
    assert chain.jobs(both)[1]["parents"] == [{"job": "1 solid", "parameter": "maps.edge"}]


def test_a_source_can_be_what_those_before_have_left_of_it(state: dict[str, Any]) -> None:
    state["_chain"] = [Step("solid", {}), Step("moved", {"clip": FromStep(1)})]
    assert chain.sources()[1].media_types == ("image/gif",)
    assert chain.sources()[2].media_types == ("video/mp4",)


def test_what_follows_takes_the_last_step_in(state: dict[str, Any]) -> None:
    assert chain.next_steps(["model/ply", "image/gif", "image/png"]) == {"drawn": "Drawn", "moved": "Moved"}
    chain.add(chain.modalities()[2], {"seed": 3}, "moved")
    assert state["_chain"] == [Step("solid", {"seed": 3})]
    assert (state["_wanted"], state["_fill"]) == ("moved", {"clip": FromStep(1)})
    chain.add(chain.modalities()[0], {"prompt": "a"}, "drawn")
    assert state["_fill"] == {"like": FromStep(2)}


def test_without_a_step_those_after_it_move_up(state: dict[str, Any]) -> None:
    state["_chain"] = [
        Step("solid", {}),
        Step("drawn", {"prompt": "a"}),
        Step("moved", {"prompt": "b", "frames": [FromStep(1), FromStep(2)]}),
    ]
    state["form/moved/clip/step"] = 3
    chain._remove(1)
    assert state["_chain"][1] == Step("moved", {"prompt": "b", "frames": [FromStep(1)]})
    assert state["form/moved/clip/step"] == 2
    chain._back()
    assert state["_fill"] == {"prompt": "b", "frames": [FromStep(1)]}
    assert state["_chain"] == [Step("drawn", {"prompt": "a"})]
