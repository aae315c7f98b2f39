"""The runtime of ``dots``: each step moves half of the way from noise to the disc, and draws a little noise.

Two variables of the environment exist for tests of the platform: PERRIN_DOTS_LOAD, the seconds that loading takes, and
PERRIN_DOTS_TRACE, a file that gets a line for every step: when, which process, which seed, which row.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from perrin.errors import Degenerate, InvalidInput
from perrin.inputs import InputFile
from perrin.modality import Format
from perrin.models import ModelCard
from perrin_dots import DotsParameters

__all__ = ["DotsRun", "DotsRuntime"]

SIZE = 32


class DotsRun:
    """One request in flight: its whole state is (x, row); noise is keyed by (seed, item, row)."""

    def __init__(self, parameters: DotsParameters, pictures: Sequence[Any] = ()) -> None:
        self._p = parameters
        self.plan = tuple(range(parameters.steps or 10))
        self.row = 0
        self._x = np.stack([self._noise(i, 0) for i in range(parameters.count)])
        y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
        self._target = (np.hypot(x, y) <= parameters.radius).astype(np.float64)
        for picture in pictures:
            self._target = 0.5 * (self._target + picture)

    def _noise(self, item: int, row: int) -> Any:
        rng = np.random.Generator(np.random.Philox(key=[(self._p.seed or 0) + item, row]))
        return rng.standard_normal((SIZE, SIZE))

    @property
    def done(self) -> bool:
        return self.row >= len(self.plan)

    def step(self) -> None:
        self._p.linger("step")
        _trace(self._p.seed or 0, self.row)
        if self.row == len(self.plan) // 2:
            self._make_trouble()
        left = 1 - (self.row + 1) / len(self.plan)
        for i in range(len(self._x)):
            self._x[i] += 0.5 * (self._target - self._x[i]) + 0.1 * left * self._noise(i, self.row + 1)
        self.row += 1

    def _make_trouble(self) -> None:
        if self._p.once:
            try:
                Path(self._p.once).touch(exist_ok=False)
            except FileExistsError:
                return
        match self._p.trouble:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "fail":
                raise RuntimeError("the dots fell off")
            case "memory":
                raise MemoryError("wanted 3 TiB")
            case "hang":
                time.sleep(3600)
            case "degenerate":
                self._target = np.zeros((SIZE, SIZE))

    @property
    def clean(self) -> Any:
        return self._x

    @property
    def result(self) -> Any:
        return self._x

    def save(self) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, x=self._x, row=self.row)
        return stream.getvalue()

    def restore(self, data: bytes) -> None:
        with np.load(io.BytesIO(data)) as saved:
            self._x, self.row = saved["x"].copy(), int(saved["row"])


class DotsRuntime:
    """One model on one device."""

    @classmethod
    def load(cls, card: ModelCard, device: str) -> Self:
        if seconds := os.environ.get("PERRIN_DOTS_LOAD"):
            time.sleep(float(seconds))
        return cls()

    def start(self, parameters: DotsParameters, inputs: Mapping[str, InputFile]) -> DotsRun:
        parameters.linger("encode")
        return DotsRun(parameters, [_picture(place, file.data) for place, file in sorted(inputs.items())])

    def preview(self, clean: Any) -> bytes | None:
        return _png(_bytes(clean[0]))

    def decode(self, clean: Any, parameters: DotsParameters, inputs: Mapping[str, InputFile]) -> Sequence[Any]:
        parameters.linger("decode")
        if parameters.trouble == "degenerate":
            return [np.zeros((SIZE, SIZE)) for _ in clean]
        return list(clean)

    def check(self, result: Any) -> None:
        if float(np.ptp(result)) < 1e-6:
            raise Degenerate("the picture is one flat colour")

    def export(self, results: Sequence[Any], format: Format, metadata: Mapping[str, Any]) -> bytes:
        asked = metadata["parameters"]
        if asked["slow"] == "write":
            time.sleep(asked["delay"])
        comment = json.dumps(dict(metadata), sort_keys=True)
        if format.name == "txt":
            rows = ("\n".join("".join("#" if v > 0.5 else "." for v in row) for row in r) for r in results)
            return (comment + "\n" + "\n\n".join(rows) + "\n").encode()
        return f"P5\n# {comment}\n{SIZE} {SIZE}\n255\n".encode() + _bytes(results[0])


def _trace(seed: int, row: int) -> None:
    if path := os.environ.get("PERRIN_DOTS_TRACE"):
        with Path(path).open("a") as stream:
            stream.write(f"{time.monotonic()} {os.getpid()} {seed} {row}\n")


def _picture(place: str, data: bytes) -> Any:
    """A PGM of the only size there is, as it is written here."""
    header = f"\n{SIZE} {SIZE}\n255\n".encode()
    found, _, pixels = data.partition(header)
    if not found.startswith(b"P5") or len(pixels) != SIZE * SIZE:
        raise InvalidInput(place, f"a file of {len(data)} bytes", f"a PGM picture of {SIZE} by {SIZE} pixels")
    return np.frombuffer(pixels, np.uint8).reshape(SIZE, SIZE) / 255


def _bytes(picture: Any) -> bytes:
    data: bytes = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8).tobytes()
    return data


def _png(gray: bytes) -> bytes:
    """A PNG of SIZE x SIZE gray bytes, so that the plugin needs no imaging library."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(b"\0" + gray[i : i + SIZE] for i in range(0, len(gray), SIZE))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
