"""The training loop, from top to bottom.

A step's batch is made of parts, one for each process and accumulation; a part's batch and noise depend on (seed, step,
part) alone. So a run killed at any moment and resumed is the same run, and two processes are one that accumulates
twice.
The checkpoint is one safetensors file with weights, averaged weights and optimizer state, replaced atomically.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from perrin.diffusion.state import Fields
from perrin.errors import SamplingError
from perrin.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from perrin.training.ema import Averages
from perrin.training.journal import Journal
from perrin.training.recipe import Stage
from perrin.training.sharded import ShardedAdamW
from perrin.training.task import Task

__all__ = ["CHECKPOINT", "Trained", "learning_rate", "leave", "meet", "placed", "run_stage"]


class Trained(NamedTuple):
    """What came out: the averaged network, the steps it took, and its last evaluation."""

    network: torch.nn.Module
    steps: int
    metrics: dict[str, float]


Report = Callable[[int, int, Mapping[str, float]], None]
"""Called with (step, steps, numbers) every few steps."""


def learning_rate(stage: Stage, step: int, share: float = 0.0) -> float:
    """The rate of ``step`` (from 0): linear warm-up, constant, linear decay over the last share of the run.

    Args:
        stage: the settings.
        step: the step.
        share: of the time budget that is used up; the run is as far as the budget that is nearer its end.
    """
    done = max(step / stage.steps, share)
    up = min(1.0, (step + 1) / stage.warmup) if stage.warmup else 1.0
    down = min(1.0, (1 - done) / max(1 / stage.steps, stage.decay)) if stage.decay else 1.0
    return stage.learning_rate * min(up, down)


def run_stage(stage: Stage, task: Task, out: Path, seed: int, report: Report, steps: int | None = None) -> Trained:
    """Train one stage to its end, or to ``steps`` if that is earlier, resuming what is in ``out``.

    Args:
        stage: the settings.
        task: what is trained.
        out: folder for the checkpoint, the log and sample pictures.
        seed: of the run.
        report: told how it goes.
        steps: stop here, for a dry run; the rates are those of the whole stage.

    Raises:
        SamplingError: the loss is not finite; the checkpoint before it is kept.
        Conflict: the checkpoint in ``out`` is another network's.
    """
    last = min(stage.steps, steps or stage.steps)
    accelerator = _accelerator(stage)
    network = _laid_out(task.network, stage)
    optimizer = _optimizer(stage, network, accelerator)
    averages = Averages(network, stage.ema, stage.ema_snapshots)
    step, used = load_checkpoint(out / CHECKPOINT, network, averages, optimizer)
    for _, average in averages:
        average.network.to(accelerator.device)
    if stage.compile:
        network.compile()  # in place, so that what wraps it and what is saved keep their names
    trained = accelerator.prepare(network)
    if not isinstance(optimizer, ShardedAdamW):  # accelerate takes torch's own alone
        optimizer = accelerator.prepare(optimizer)
    main, parts = accelerator.is_main_process, accelerator.num_processes * stage.accumulate
    first = accelerator.process_index * stage.accumulate
    began, saved = time.monotonic() - used, used
    loss = torch.zeros(())

    with Journal(out if main else None) as journal:
        while step < last:
            # Seconds of the whole run, by the first process's clock: all must stop and save at the same step.
            spent = _agree(accelerator, time.monotonic() - began)
            done = spent / 60 / stage.minutes if stage.minutes else 0.0
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step, done)
            loss = torch.zeros((), device=accelerator.device)
            for part in range(first, first + stage.accumulate):
                key = [seed, step, part] if parts > 1 else [seed, step]
                batch = placed(task.batch(stage.batch // parts, np.random.default_rng(key)), accelerator.device)
                generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * parts + part)
                waits = part + 1 < first + stage.accumulate
                with accelerator.no_sync(trained) if waits else contextlib.nullcontext():
                    with accelerator.autocast():
                        value, numbers = task.loss(trained, batch, generator)
                    accelerator.backward(value / stage.accumulate)
                loss += value.detach() / stage.accumulate
            norm = accelerator.clip_grad_norm_(network.parameters(), stage.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            averages.update(network, step)
            saves = step == last or spent - saved > stage.save_seconds
            if step % 20 == 0 or saves:
                value = accelerator.reduce(loss, "mean")
                if not torch.isfinite(value):
                    raise SamplingError(f"step {step}: the loss is {value}; lower learning_rate and run again")
            if main and (step % 20 == 0 or step == last):
                said = {"loss": float(value), "gradient_norm": float(norm), "learning_rate": group["lr"]}
                report(step, stage.steps, journal.numbers(step, stage.batch, said | _plain(numbers)))
            if saves:
                save_checkpoint(out / CHECKPOINT, step, time.monotonic() - began, network, averages, optimizer, main)
                saved = spent
            if main and step % stage.evaluate_every == 0:
                averages.snapshot(out / "averages", step)
                if step < last:
                    journal.evaluation(step, task, _at_rest(averages.network))
        if main and step % stage.evaluate_every:
            averages.snapshot(out / "averages", step)
        network = _at_rest(averages.network)
        measured = journal.evaluation(step, task, network) if main else {}
    return Trained(network, step, measured)


def _accelerator(stage: Stage) -> Any:
    if torch.distributed.is_available():
        from torch.distributed import nn  # noqa: F401  imported later, its default arguments would hold the group for ever
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # accelerate keeps the first stage's precision for the whole process otherwise
    # Whether bf16 runs here is the CPU's affair; accelerate asks for it by the same name everywhere.
    return Accelerator(mixed_precision=stage.precision, cpu=not torch.cuda.is_available())


def meet() -> None:
    """Wait for the run's other processes, where there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def leave() -> None:
    """Leave the run's other processes, and end the threads that talked to them.

    Without this a process that ends later than the first one may abort, and so may one whose threads outlive the
    interpreter.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from accelerate.state import AcceleratorState

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        gc.collect()  # the wrapped network is a cycle, and holds the group


def placed(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor in it on ``device``: tensors, fields, and any nesting of tuples, lists and dicts."""
    if isinstance(batch, Fields):
        mask = None if batch.mask is None else batch.mask.to(device)
        return Fields({name: tensor.to(device) for name, tensor in batch.items()}, mask)
    if isinstance(batch, tuple | list):
        parts = [placed(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, Mapping):
        return {key: placed(part, device) for key, part in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch


def _at_rest(network: torch.nn.Module) -> torch.nn.Module:
    """``network`` on the CPU, where a task measures and publishes it; a copy, if it is elsewhere."""
    if all(tensor.device.type == "cpu" for tensor in network.parameters()):
        return network
    return copy.deepcopy(network).cpu()


def _laid_out(network: torch.nn.Module, stage: Stage) -> torch.nn.Module:
    if stage.recompute:
        network.recompute = True  # type: ignore[assignment]
    if stage.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _optimizer(stage: Stage, network: torch.nn.Module, accelerator: Any) -> Any:
    """AdamW over what is to be trained; with ``shard``, each process keeps its share of the state."""
    options: dict[str, Any] = {"lr": stage.learning_rate, "betas": stage.betas, "weight_decay": stage.weight_decay}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if stage.shard and accelerator.num_processes > 1:
        return ShardedAdamW(trainable, **options)
    return torch.optim.AdamW(trainable, **options)


def _agree(accelerator: Any, seconds: float) -> float:
    if accelerator.num_processes == 1:
        return seconds
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor(seconds, device=accelerator.device)))


def _plain(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(number) for key, number in numbers.items()}
