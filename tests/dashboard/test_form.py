"""The dashboard's form: files from the person's machine or by the id of a result, and groups of parameters."""

from __future__ import annotations

import sys

import pytest
from streamlit.testing.v1 import AppTest


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def script() -> None:
        from typing import Annotated, Literal

        import streamlit as st
        from pydantic import BaseModel, Field

        from perrin.inputs import Input
        from perrin.wire import ModalityInfo
        from perrin_dashboard.form import draw_form

        class Asked(BaseModel):
            prompt: str | None = None
            image: Annotated[str, Input("image/*")] | None = Field(None, title="Image", description="To begin with.")
            frames: list[Annotated[str, Input("image/*")]] = []
            towards: str | None = Field(None, json_schema_extra={"group": "Between"})
            maps: dict[Literal["edge", "depth"], Annotated[str, Input("image/*")]] = {}
            part: float | None = Field(None, ge=0, le=1, json_schema_extra={"group": "Between"})

        info = ModalityInfo(
            name="film", title="Film", summary="", view="image", formats=["png"], media_types=["image/png"],
            default_model="none",
            parameters=Asked.model_json_schema(),
        )  # fmt: skip
        st.session_state["values"] = draw_form(info, [])

    app = AppTest.from_function(script, default_timeout=120).run()
    assert not app.exception
    return app


def test_files_are_bytes_and_ids_are_text(form: AppTest) -> None:
    assert form.session_state["values"] == {}
    form.file_uploader(key="form/film/image/file/0").set_value(("a.png", b"one", "image/png"))
    form.file_uploader(key="form/film/frames/file/0").set_value([("b.png", b"two", "image/png"), ("c", b"three", "")])
    form.run()
    assert form.session_state["values"] == {"image": b"one", "frames": [b"two", b"three"]}


def test_what_is_taken_up_again_keeps_its_ids(form: AppTest) -> None:
    form.file_uploader(key="form/film/image/file/0").set_value(("a.png", b"of before", "image/png"))
    form.run()
    form.session_state["_fill"] = {"prompt": "again", "image": "a" * 32, "frames": ["b" * 32, "c" * 32]}
    form.run()
    assert not form.exception
    values = {"prompt": "again", "image": "a" * 32, "frames": ["b" * 32, "c" * 32]}
    assert form.session_state["values"] == values
    form.file_uploader(key="form/film/image/file/1").set_value(("a.png", b"one", "image/png"))
    form.run()
    assert form.session_state["values"] == {**values, "image": b"one"}


def test_files_by_name_have_a_widget_each(form: AppTest) -> None:
    form.file_uploader(key="form/film/maps.edge/file/0").set_value(("a.png", b"lines", "image/png"))
    form.run()
    assert form.session_state["values"] == {"maps": {"edge": b"lines"}}
    form.session_state["_fill"] = {"maps": {"depth": "a" * 32}}
    form.run()
    assert not form.exception
    assert form.session_state["values"] == {"maps": {"depth": "a" * 32}}
    form.session_state["_fill"] = {"prompt": "again"}
    form.run()
    assert form.session_state["values"] == {"prompt": "again"}


def test_a_group_waits_under_its_name_and_opens_when_something_is_said(form: AppTest) -> None:
    between, advanced = form.expander
    assert (between.label, between.proto.expanded, advanced.label) == ("Between", False, "Advanced")
    assert [between.text_input[0].key, between.number_input[0].key] == ["form/film/towards", "form/film/part"]
    form.text_input(key="form/film/towards").set_value("a pear").run()
    assert form.session_state["values"] == {"towards": "a pear"}
    assert form.expander[0].proto.expanded
