from __future__ import annotations

import enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from perrin.fields import convert, read_fields


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    a: int = 0


class Everything(BaseModel):
    text: str = Field(max_length=10, title="Text", description="Words.")
    count: int = Field(1, ge=1, lt=5)
    share: float | None = Field(None, gt=0, le=1)
    flag: bool = False
    colour: Colour = Colour.RED
    mode: Literal["fast", "good"] | None = None
    level: Literal[1, 2, 3] = 2
    only: Literal["one"] = "one"
    numbers: list[int] | None = None
    colours: list[Colour] = []
    inner: Inner = Inner()
    anything: Any = None


FIELDS = {field.name: field for field in read_fields(Everything.model_json_schema())}


def test_every_field_is_there_in_its_order() -> None:
    assert list(FIELDS) == list(Everything.model_fields)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", {"kind": "string", "required": True, "longest": 10, "title": "Text", "help": "Words."}),
        ("count", {"kind": "integer", "low": 1, "high": 4, "default": 1, "range": "1 to 4", "title": "Count"}),
        ("share", {"kind": "number", "low": 0, "high": 1, "default": None, "required": False}),
        ("flag", {"kind": "boolean", "default": False}),
        ("colour", {"kind": "string", "choices": ("red", "blue"), "default": "red"}),
        ("mode", {"kind": "string", "choices": ("fast", "good"), "default": None}),
        ("level", {"kind": "integer", "choices": (1, 2, 3)}),
        ("only", {"kind": "string", "choices": ("one",)}),
        ("numbers", {"kind": "array", "items": "integer", "default": None}),
        ("colours", {"kind": "array", "items": "string", "choices": ("red", "blue")}),
        ("inner", {"kind": "object", "items": "object"}),
        ("anything", {"kind": "string"}),
    ],
)
def test_a_field_says_what_it_takes(name: str, expected: dict[str, Any]) -> None:
    assert {key: getattr(FIELDS[name], key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "7", "7"),
        ("count", "7", 7),
        ("count", "7.5", "7.5"),
        ("share", "0.5", 0.5),
        ("numbers", "3", 3),
        ("inner", '{"a": 1}', {"a": 1}),
        ("inner", "{", "{"),
    ],
)
def test_text_becomes_what_it_says_or_stays_as_it_is(name: str, text: str, value: Any) -> None:
    found = convert(FIELDS[name], text)
    assert found == value
    assert type(found) is type(value)
