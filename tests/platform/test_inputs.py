"""Files in requests: where they are, what may be there, and what a file is by its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from perrin.commands.options import given
from perrin.errors import InvalidInput
from perrin.fields import read_fields
from perrin.inputs import Input, InputFile, check_type, declares, filled, local_files, put, slots, takes
from perrin.media import sniff

A, B = "a" * 32, "b" * 32
PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


class Control(BaseModel):
    image: Annotated[str, Input("image/*")]
    weight: float = 1.0


class Asked(BaseModel):
    prompt: str = ""
    image: Annotated[str, Input("image/png", "image/jpeg")] | None = Field(None, title="Image", description="A start.")
    frames: list[Annotated[str, Input("image/png")]] = []
    controls: list[Control] | None = None
    maps: dict[Literal["edge", "depth"], Annotated[str, Input("image/*")]] = {}


SCHEMA = Asked.model_json_schema()


def test_every_place_of_a_request_that_has_a_file_is_found() -> None:
    values = {"prompt": "x", "image": A, "frames": [A, B], "controls": [{"image": B, "weight": 2}], "more": A}
    assert [(slot.path, slot.value) for slot in slots(SCHEMA, values)] == [
        ("image", A), ("frames.0", A), ("frames.1", B), ("controls.0.image", B),
    ]  # fmt: skip
    assert declares(SCHEMA) == ("image", "frames", "controls", "maps")
    assert [(slot.path, slot.accepts) for slot in slots(SCHEMA, {"maps": {"edge": A}})] == [("maps.edge", ("image/*",))]
    assert filled(SCHEMA, {"maps": {"edge": A}}, lambda slot: B) == {"maps": {"edge": B}}
    assert slots(SCHEMA, {"image": None, "prompt": A}) == []
    assert slots(SCHEMA, Asked(image=A).model_dump()) == slots(SCHEMA, {"image": A})
    assert filled(SCHEMA, values, lambda slot: slot.path)["controls"] == [{"image": "controls.0.image", "weight": 2}]
    assert values["image"] == A, "the values given are not changed"


@pytest.mark.parametrize(
    ("path", "accepts"),
    [
        ("image", ("image/png", "image/jpeg")),
        ("frames.0", ("image/png",)),
        ("frames.1", None),
        ("controls.0.image", ("image/*",)),
        ("controls.1.image", None),
        ("maps.edge", ("image/*",)),
        ("maps", None),
        ("controls.0.weight", None),
        ("prompt", None),
        ("nothing", None),
        ("image.0", None),
        ("", None),
        ("frames.x", None),
    ],
)
def test_a_place_for_a_parents_artifact_is_one_that_takes_files(path: str, accepts: Any) -> None:
    assert takes(SCHEMA, path, {"controls": [{"weight": 1}]}) == accepts


def test_what_is_put_is_found_there() -> None:
    values: dict[str, Any] = {"frames": [A], "controls": [{"image": A}]}
    for path in ("image", "frames.0", "frames.1", "controls.0.image", "maps.edge"):
        assert {slot.path: slot.value for slot in slots(SCHEMA, put(values, path, B))}[path] == B
    for path in ("frames.2", "controls.1.image", "frames.-1", "image.x.y"):
        with pytest.raises(InvalidInput):
            put(values, path, B)


@pytest.mark.parametrize("value", ["x", "/etc/passwd", "A" * 32, "a" * 31, "a" * 33, 3, b"x"])
def test_a_request_holds_ids_and_never_paths(value: Any) -> None:
    with pytest.raises(ValidationError):
        Asked(image=value)


def test_the_form_knows_which_fields_take_files() -> None:
    fields = {field.name: field for field in read_fields(SCHEMA)}
    assert fields["image"].accepts == ("image/png", "image/jpeg")
    assert fields["frames"].accepts == ("image/png",)
    assert fields["prompt"].accepts == ()
    maps = fields["maps"]
    assert (maps.kind, maps.accepts, maps.choices) == ("object", ("image/*",), ("edge", "depth"))
    with pytest.raises(ValidationError):
        Asked(maps={"pose": A})


def test_the_command_line_takes_a_file_for_a_name() -> None:
    fields = read_fields(SCHEMA)
    said = given(fields, {"maps": ["edge=a=b.png", f"depth={A}"], "frames": ["a.png"]})
    assert said == {"maps": {"edge": Path("a=b.png"), "depth": A}, "frames": [Path("a.png")]}
    for wrong in ("a.png", "edge=", "=a.png", "pose=a.png"):
        with pytest.raises(InvalidInput, match=r"maps: got .*KIND=FILE, with the kind one of edge, depth"):
            given(fields, {"maps": [wrong]})


def test_local_files_are_paths_or_bytes_and_the_same_file_has_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(PNG)
    one, files = local_files(SCHEMA, {"image": path, "frames": (str(path), PNG)})
    assert one["image"] == one["frames"][0] == one["frames"][1] == InputFile("image/png", PNG).sha256[:32]
    assert {place: file.data for place, file in files.items()} == {"image": PNG, "frames.0": PNG, "frames.1": PNG}
    assert Asked(**one).image == one["image"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no-such-file.png", "image: got 'no-such-file.png', wanted a file that can be read: no such file"),
        (".", "wanted a file that can be read: is a directory"),
        (b"", "image: got b'', wanted a file with something in it"),
        (b"plain text", "image: got 'a file', wanted image/png or image/jpeg: this is text/plain"),
        (3, "image: got 3, wanted a path or bytes"),
        ("a\0b", "wanted a file that can be read"),
    ],
)
def test_a_local_file_that_will_not_do_is_one_line(value: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        local_files(SCHEMA, {"image": value})
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_types_are_compared_without_their_parameters() -> None:
    check_type("x", ("text/plain",), "Text/Plain; charset=utf-8", "x")
    check_type("x", ("image/*",), "image/avif", "x")
    for accepts in (("image/*",), ("text/pl",), ("*/*x",), ()):
        with pytest.raises(InvalidInput, match="this is text/plain"):
            check_type("x", accepts, "text/plain", "x")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x18ftypavif", "image/avif"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
        (b"P5\n# made\n2 2\n255\n\0\0\0\0", "image/x-portable-graymap"),
        (b"P5x", "text/plain"),
        (b"fLaC\0\0\0\x22", "audio/flac"),
        (b"glTF\x02\0\0\0", "model/gltf-binary"),
        (b"ply\nformat ascii 1.0\n", "model/ply"),
        ("C1=CC=CC=C1 benzène\n".encode(), "text/plain"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"caf\xe9 in latin-1", "application/octet-stream"),
        (b"<svg>", "text/plain"),
        (b"", "text/plain"),
    ],
)
def test_a_file_is_what_its_bytes_say(data: bytes, media_type: str) -> None:
    assert sniff(data) == media_type
