"""What a run writes down: lines of JSON, the same for TensorBoard, a picture at every evaluation, and warnings."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from torch import nn

from perrin.training.task import Task

__all__ = ["COLLAPSED", "MEMORISED", "Journal"]

COLLAPSED = 0.4
"""Samples that differ by less than this share of what data differ by look alike."""

MEMORISED = 0.2
"""More than this share of samples being near copies of training data is worth a word."""

EARLY = 500
"""Before so many steps nothing is said of samples: they have learnt nothing yet."""

LOG = "log.jsonl"


class Journal:
    """Writes into ``out``; nothing at all where that is None, as in every process but the first."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._stream: IO[str] | None = None
        self._board: Any = None
        self._tick, self._step = time.monotonic(), 0

    def __enter__(self) -> Self:
        if self._out is not None:
            self._stream = (self._out / LOG).open("a")
            self._board = _board(self._out)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._board is not None:
            self._board.close()

    def numbers(self, step: int, batch: int, values: Mapping[str, float]) -> dict[str, float]:
        """Write down how a step went; the same with the items per second since the last time."""
        now = time.monotonic()
        rate = (step - self._step) * batch / max(now - self._tick, 1e-9) if self._step else 0.0
        self._tick, self._step = now, step
        said = {**values, **({"items_per_second": rate} if rate else {})}
        self._write({"step": step, "items": step * batch, **said})
        self._draw(step, said)
        return said

    def evaluation(self, step: int, task: Task, network: nn.Module) -> dict[str, float]:
        """Evaluate, draw samples, write both down, and warn of samples that are all alike or copies of the data."""
        if self._out is None:
            return {}
        picture = self._out / f"samples-{step:07d}.png"
        measured = task.evaluate(network, picture)
        self._write({"step": step, "evaluation": measured})
        self._draw(step, measured, picture)
        if step >= EARLY and measured.get("diversity", 1.0) < COLLAPSED:
            self._warn(step, f"samples differ by {measured['diversity']:.2f} of what the data differ by: collapse?")
        if step >= EARLY and measured.get("memorised", 0.0) > MEMORISED:
            self._warn(step, f"{measured['memorised']:.0%} of the samples are near copies of training data")
        self._step = 0
        return measured

    def _warn(self, step: int, text: str) -> None:
        self._write({"step": step, "warning": text})
        warnings.warn(f"step {step}: {text}", RuntimeWarning, stacklevel=3)

    def _write(self, values: dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps({"time": time.time(), **values}) + "\n")
            self._stream.flush()

    def _draw(self, step: int, values: Mapping[str, float], picture: Path | None = None) -> None:
        if self._board is None:
            return
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if picture is not None and picture.exists():
            import numpy as np
            from PIL import Image

            with Image.open(picture) as image:
                self._board.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")


def _board(out: Path) -> Any:
    """TensorBoard's writer, where that package is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"))
