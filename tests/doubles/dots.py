"""A modality for tests: grey squares. No torch, no weights; every kind of parameter, both kinds of format."""

from __future__ import annotations

import enum
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from perrin import plugins
from perrin.errors import Degenerate
from perrin.modality import Format, Modality, Parameters, View

PNG = Format("png", "image/png")
DOTS = Format("dots", "text/plain", many=True)


class Shape(enum.StrEnum):
    ROUND = "round"
    SQUARE = "square"


class DotParameters(Parameters):
    prompt: str = Field(min_length=1, max_length=100, title="Prompt", description="What to draw.")
    size: int = Field(8, ge=1, le=64, title="Size", description="Pixels a side.")
    shape: Shape = Field(Shape.ROUND, title="Shape", description="Shape of a dot.")
    bright: bool = Field(False, title="Bright", description="Light dots [sic].")
    layers: list[int] | None = Field(None, title="Layers", description="Layers to draw.")


face = Modality(
    name="dots",
    title="Dots",
    summary="Grey squares.",
    parameters=DotParameters,
    view=View.IMAGE,
    formats=(PNG, DOTS),
    runtime="dots:DotRuntime",
    default_model="dots-8",
    package="dots",
    examples=({"prompt": "a dot"}, {"prompt": "two dots"}),
)


class DotRun:
    def __init__(self, steps: int) -> None:
        self.row = 0
        self.plan = [None] * steps
        self.clean = self.result = None

    @property
    def done(self) -> bool:
        return self.row == len(self.plan)

    def step(self) -> None:
        self.row += 1


class DotRuntime:
    """``prompt`` "interrupt" presses Ctrl-C; "nothing" makes an empty result; "crash" raises."""

    loads = 0

    @classmethod
    def load(cls, card: Any, device: str) -> DotRuntime:
        cls.loads += 1
        return cls()

    def start(self, parameters: DotParameters) -> DotRun:
        if parameters.prompt == "interrupt":
            raise KeyboardInterrupt
        if parameters.prompt == "crash":
            raise ZeroDivisionError("division by zero")
        return DotRun(parameters.steps or 1)

    def preview(self, clean: Any) -> bytes | None:
        return None

    def decode(self, clean: Any, parameters: DotParameters) -> list[str]:
        assert parameters.seed is not None
        if parameters.prompt == "nothing":
            return [""]
        return [f"{parameters.prompt} {parameters.size} {parameters.seed + i}" for i in range(parameters.count)]

    def check(self, result: str) -> None:
        if not result:
            raise Degenerate("the result is empty")

    def export(self, results: Sequence[str], format: Format, metadata: Mapping[str, Any]) -> bytes:
        if format.name == "dots":
            return json.dumps({"items": list(results), "metadata": dict(metadata)}, sort_keys=True).encode()
        return png({"perrin": json.dumps(dict(metadata), sort_keys=True)}, zlib.crc32(results[0].encode()) & 255)


def png(texts: Mapping[str, str], shade: int = 128) -> bytes:
    """A grey picture of 8 by 8 pixels with iTXt chunks."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))]
    chunks += [(b"iTXt", k.encode() + b"\0\0\0\0\0" + v.encode()) for k, v in texts.items()]
    chunks += [(b"IDAT", zlib.compress((b"\0" + bytes([shade]) * 8) * 8)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


CARD = """
name: dots-8
modality: dots
title: Dots
licence: CC0-1.0
defaults: {steps: 3, sampler: ddim, guidance: 1.0}
"""


def install(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Make ``dots`` the only modality, its model under ``home``."""
    folder = home / "models" / "dots-8"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(CARD)
    entry = EntryPoint("dots", "dots:face", "perrin.modalities")
    monkeypatch.setattr(plugins, "_entries", lambda: {"dots": entry})
    monkeypatch.setenv("PERRIN_HOME", str(home))
    for name in ("PERRIN_URL", "PERRIN_API_KEY", "PERRIN_MODELS", "PERRIN_DEVICE", "PERRIN_DEBUG"):
        monkeypatch.delenv(name, raising=False)
