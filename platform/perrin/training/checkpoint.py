"""All of a run in one safetensors file, replaced atomically: weights, averages, optimizer state, step, time used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from perrin.errors import Conflict
from perrin.training.ema import Averages
from perrin.training.sharded import ShardedAdamW

__all__ = ["CHECKPOINT", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    path: Path, step: int, seconds: float, network: torch.nn.Module, averages: Averages, optimizer: Any, main: bool
) -> None:
    """Write the run as it is after ``step``; every process calls this, and the main one writes."""
    stepped = getattr(optimizer, "optimizer", optimizer).state_dict()["state"]  # the processes' shares come together
    if not main:
        return
    tensors: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    for name, average in averages:
        tensors |= {f"{name}.{k}": v for k, v in average.network.state_dict().items()}
    for number, state in stepped.items():
        tensors |= {f"optimizer.{number}.{k}": torch.as_tensor(v) for k, v in state.items()}
    part = path.with_suffix(".part")
    notes = {"step": str(step), "seconds": repr(seconds)}
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, part, notes)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(path)


def load_checkpoint(
    path: Path, network: torch.nn.Module, averages: Averages, optimizer: torch.optim.Optimizer | ShardedAdamW
) -> tuple[int, float]:
    """Restore everything from ``path``: the step to go on with and the seconds used; zeros if there is no checkpoint.

    Raises:
        Conflict: it is another network's.
    """
    if not path.exists():
        return 0, 0.0
    with safetensors.safe_open(path, "pt") as stream:
        notes = stream.metadata()
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        network.load_state_dict(part("network."))
        for name, average in averages:
            average.network.load_state_dict(part(f"{name}."))
    except RuntimeError as error:
        raise Conflict(f"{path} is a checkpoint of another network; use --fresh or another --out ({error})") from None
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    if isinstance(optimizer, ShardedAdamW):
        optimizer.load_state_dict({"state": state})
    else:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(notes["step"]), float(notes.get("seconds", 0.0))
