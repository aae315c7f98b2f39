"""The training loop, from top to bottom.

Progress is the step; several processes (accelerate launch, torchrun) share each batch. Batch and noise of a step
depend on (seed, step) alone; the checkpoint is one safetensors file with weights, averaged weights and optimizer state,
replaced atomically. A run killed at any moment and resumed is the same run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from perrin.errors import Conflict, SamplingError
from perrin.training.ema import Averages
from perrin.training.recipe import Stage
from perrin.training.task import Task

__all__ = ["CHECKPOINT", "Trained", "learning_rate", "run_stage"]

CHECKPOINT = "checkpoint.safetensors"


class Trained(NamedTuple):
    """What came out: the averaged network, the steps it took, and its last evaluation."""

    network: torch.nn.Module
    steps: int
    metrics: dict[str, float]


Report = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, numbers) every few steps."""


def learning_rate(stage: Stage, step: int) -> float:
    """The rate of ``step`` (from 0): linear warm-up, constant, linear decay over the last share of the steps."""
    up = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    down = min(1.0, (stage.steps - step) / max(1.0, stage.decay * stage.steps)) if stage.decay else 1.0
    return stage.learning_rate * min(up, down)


def run_stage(stage: Stage, task: Task, out: Path, seed: int, report: Report, steps: int | None = None) -> Trained:
    """Train one stage to its end, or to ``steps`` if that is earlier, resuming what is in ``out``.

    Args:
        stage: the settings.
        task: what is trained.
        out: folder for the checkpoint, ``log.jsonl`` and sample pictures.
        seed: of the run.
        report: told how it goes.
        steps: stop here, for a dry run; the rates are those of the whole stage.

    Raises:
        SamplingError: the loss is not finite; the checkpoint before it is kept.
        Conflict: the checkpoint in ``out`` is another network's.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # accelerate keeps the first stage's precision for the whole process otherwise
    last = min(stage.steps, steps or stage.steps)
    # Whether bf16 runs here is the CPU's affair; accelerate asks for it by the same name everywhere.
    accelerator = Accelerator(mixed_precision=stage.precision, cpu=not torch.cuda.is_available())
    network = task.network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=stage.weight_decay
    )
    ema = Averages(network, stage.ema, stage.ema_snapshots)
    step = _load(out / CHECKPOINT, network, ema, optimizer)
    for _, average in ema:
        average.network.to(accelerator.device)
    if stage.compile:
        network.compile()  # in place, so that what wraps it and what is saved keep their names
    trained, optimizer = accelerator.prepare(network, optimizer)
    rank, share = (
        ((accelerator.process_index,), accelerator.num_processes) if accelerator.num_processes > 1 else ((), 1)
    )
    main = accelerator.is_main_process
    saved = tick = time.monotonic()
    seen = 0
    with (out / "log.jsonl").open("a") as log:
        while step < last:
            batch = task.batch(stage.batch // share, np.random.default_rng([seed, step, *rank]))
            generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * share + sum(rank))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step)
            with accelerator.autocast():
                loss, numbers = task.loss(trained, batch, generator)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(network.parameters(), stage.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            seen += stage.batch
            ema.update(network, step)
            if main and (step % 20 == 0 or step == last):
                value = float(loss.detach())
                if not np.isfinite(value):
                    raise SamplingError(f"step {step}: the loss is {value}; lower learning_rate and run again")
                rate, seen, tick = seen / (time.monotonic() - tick), 0, time.monotonic()
                numbers_now = {"loss": value, "gradient_norm": float(norm), "images_per_second": rate}
                numbers_now |= {key: float(number) for key, number in numbers.items()}
                report(step, stage.steps, numbers_now)
                _log(log, {"step": step, "images": step * stage.batch, **numbers_now})
            if main and (step == last or time.monotonic() - saved > stage.save_seconds):
                _save(out / CHECKPOINT, step, network, ema, optimizer)
                saved = time.monotonic()
            if main and step % stage.evaluate_every == 0:
                ema.snapshot(out / "averages", step)
            if main and step % stage.evaluate_every == 0 and step < last:
                _log(log, {"step": step, "evaluation": task.evaluate(ema.network, out / f"samples-{step:07d}.png")})
                tick, seen = time.monotonic(), 0
        measured = task.evaluate(ema.network, out / f"samples-{step:07d}.png") if main else {}
        if main:
            _log(log, {"step": step, "evaluation": measured})
    return Trained(ema.network, step, measured)


def _log(stream: Any, values: dict[str, Any]) -> None:
    stream.write(json.dumps({"time": time.time(), **values}) + "\n")
    stream.flush()


def _save(path: Path, step: int, network: torch.nn.Module, ema: Averages, optimizer: Any) -> None:
    tensors: dict[str, Tensor] = {f"network.{k}": v for k, v in network.state_dict().items()}
    for name, average in ema:
        tensors |= {f"{name}.{k}": v for k, v in average.network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{k}": torch.as_tensor(v) for k, v in state.items()}
    part = path.with_suffix(".part")
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"step": str(step)})
    part.replace(path)


def _load(path: Path, network: torch.nn.Module, ema: Averages, optimizer: torch.optim.Optimizer) -> int:
    """Restore everything from ``path``; the step to go on with, 0 if there is no checkpoint."""
    if not path.exists():
        return 0
    with safetensors.safe_open(path, "pt") as stream:
        step = int(stream.metadata()["step"])
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        network.load_state_dict(part("network."))
        for name, average in ema:
            average.network.load_state_dict(part(f"{name}."))
    except RuntimeError as error:
        raise Conflict(f"{path} is a checkpoint of another network; use --fresh or another --out ({error})") from None
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
