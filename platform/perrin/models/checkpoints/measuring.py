"""How a checkpoint runs fastest on this machine: tried once, and remembered. Imports torch.

Tried are the precision, the order of a picture's numbers in memory (channels last), attention by xformers, the
compiler, and whether the autoencoder works on whole pictures or in tiles. Each is kept if one evaluation is faster with
it by more than the noise of the machine, in that order. What was found is in ``PERRIN_HOME/measured``, by the model's
hash, the device and the version of torch; a model that was never measured runs as its weights are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from perrin.models.card import ModelCard
from perrin.settings import Settings

__all__ = ["Measured", "measure", "remembered"]

MARGIN = 0.03
ROUNDS = 5


class Measured(BaseModel):
    """Settings of one model on one device.

    Attributes:
        dtype: that the networks compute in.
        channels_last: numbers of one place lie side by side.
        xformers: attention is that of xformers, and not torch's own.
        compiled: the network is compiled; the first evaluation of each shape then takes long.
        tiled: the autoencoder works in tiles.
        seconds: of one evaluation, by what was tried.
    """

    model_config = ConfigDict(frozen=True)

    dtype: str = ""
    channels_last: bool = False
    xformers: bool = False
    compiled: bool = False
    tiled: bool = False
    seconds: dict[str, float] = {}


def _file(card: ModelCard, device: str, settings: Settings) -> Path:
    name = torch.cuda.get_device_name(device).replace(" ", "-") if device.startswith("cuda") else device
    return settings.home_path / "measured" / f"{card.sha256[:16]}-{name}-{torch.__version__}.json"


def remembered(card: ModelCard, device: str, settings: Settings | None = None) -> Measured:
    """What was measured of the model on this device; nothing in particular if it never was."""
    try:
        return Measured.model_validate_json(_file(card, device, settings or Settings()).read_text())
    except (OSError, ValueError):
        return Measured()


def measure(
    card: ModelCard, device: str, load: Callable[[Measured], Any], size: tuple[int, int],
    precisions: tuple[str, ...], progress: Callable[[str], None] = lambda line: None, settings: Settings | None = None,
) -> Measured:  # fmt: skip
    """Try the settings, and remember the fastest.

    Args:
        card: of the model.
        device: where it is to run.
        load: its pipeline under settings.
        size: width and height in pixels that it is tried at.
        precisions: that may be chosen, the first if nothing is faster.
        progress: told of each trial.
        settings: where ``PERRIN_HOME`` is.
    """
    seconds: dict[str, float] = {}

    def tried(trial: Measured, label: str) -> float:
        pipeline = load(trial)
        seconds[label] = _evaluation(pipeline, size)
        progress(f"{label}: {seconds[label] * 1000:.0f} ms")
        return seconds[label]

    best = Measured(dtype=precisions[0])
    least = tried(best, precisions[0])
    steps: list[tuple[str, dict[str, Any]]] = [(name, {"dtype": name}) for name in precisions[1:]]
    steps += [("channels last", {"channels_last": True}), ("xformers", {"xformers": True})]
    steps += [("compiled", {"compiled": True})]
    for label, change in steps:
        trial = best.model_copy(update=change)
        try:
            taken = tried(trial, label)
        except Exception as error:  # a compiler may be missing, or a precision not be there
            progress(f"{label}: does not run here ({type(error).__name__})")
            continue
        if taken < least * (1 - MARGIN):
            best, least = trial, taken
    whole, tiles = (_decoding(load(best.model_copy(update={"tiled": tiled})), size) for tiled in (False, True))
    seconds |= {"decode": whole, "decode in tiles": tiles}
    progress(f"decode: {whole * 1000:.0f} ms whole, {tiles * 1000:.0f} ms in tiles")
    found = best.model_copy(update={"tiled": tiles < whole * (1 - MARGIN), "seconds": seconds})
    target = _file(card, device, settings or Settings())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found.model_dump(), indent=1) + "\n")
    return found


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def _evaluation(pipeline: Any, size: tuple[int, int]) -> float:
    """Seconds of one evaluation of two samples, the median of a few after two that warm up."""
    shape = pipeline.shape(*size)
    words = pipeline.words(["a", ""])
    more = pipeline.about(*size, 5.0)
    condition = {name: torch.cat([one[name] for one in words]) for name in words[0]}
    condition |= {name: value.expand(2, *value.shape[1:]) for name, value in more.items()}
    if getattr(pipeline, "paints_inside", False):
        condition["inside"] = torch.zeros(2, shape[0] + 1, *shape[1:], device=pipeline.device)
    x, t = torch.randn(2, *shape, device=pipeline.device), torch.full((2,), 0.5, device=pipeline.device)
    taken = []
    for _ in range(ROUNDS + 2):
        began = _clock(pipeline.device)
        pipeline.network(x, t, **condition)
        taken.append(_clock(pipeline.device) - began)
    return median(taken[2:])


def _decoding(pipeline: Any, size: tuple[int, int]) -> float:
    latents = torch.randn(1, *pipeline.shape(*size), device=pipeline.device)
    taken = []
    for _ in range(3):
        began = _clock(pipeline.device)
        pipeline.decode(latents)
        taken.append(_clock(pipeline.device) - began)
    return min(taken)
