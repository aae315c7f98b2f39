"""Samples of several requests on top of each other, and their answers apart again.

A stack is along the batch axis: tensors, named fields under a mask, conditions, and a time and noise levels for every
sample. Where lengths differ, entries are padded up to the longest and cropped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Output, Point
from perrin.diffusion.state import Fields, State, items_of, like

__all__ = ["Padding", "bucket", "conditions", "crop", "cut", "join", "padded", "points", "samples_of", "unstack"]

Padding = Mapping[str, tuple[int, ...]]
"""By field ('' for a plain tensor): the axes that run over entries and may be padded, such as (1,), or (1, 2) for
pairs."""


def samples_of(x: State) -> int:
    """How many samples ``x`` holds."""
    return len(x if isinstance(x, Tensor) else next(iter(x.values())))


def bucket(length: int) -> int:
    """The longest length that shares a call with ``length``: 1, 2, ... 8, 10, 12, 14, 16, 20, 24, 28, 32, 40 ..."""
    step = 1 << max(0, (length - 1).bit_length() - 3)
    return -(-length // step) * step


def join(xs: Sequence[Any]) -> State:
    """States of several requests as one."""
    if isinstance(xs[0], Tensor):
        return torch.cat(list(xs))
    mask = None if xs[0].mask is None else torch.cat([x.mask for x in xs])
    return Fields({name: torch.cat([x[name] for x in xs]) for name in xs[0]}, mask)


def conditions(wanted: list[tuple[Condition, int]], fills: tuple[str, ...] = ()) -> dict[str, Any]:
    """Conditions, each for its number of samples, as one; what is no tensor is the same in all.

    Those whose names begin with one of ``fills`` are filled up with zeros where they are smaller than others, or
    missing.
    """
    stacked = {}
    for name in dict.fromkeys(name for condition, _ in wanted for name in condition if name.startswith(fills)):
        stacked[name] = _filled([(condition.get(name), n) for condition, n in wanted])
    for name, value in wanted[0][0].items():
        if name in stacked:
            continue
        if isinstance(value, Tensor):
            stacked[name] = torch.cat([c[name].expand(n, *c[name].shape[1:]) for c, n in wanted])
        else:
            stacked[name] = value
    return stacked


def _filled(wanted: list[tuple[Tensor | None, int]]) -> Tensor:
    """Tensors of the same number of axes on top of each other, with zeros where one lacks something."""
    there = [value for value, _ in wanted if value is not None]
    sizes = [max(value.shape[axis] for value in there) for axis in range(1, there[0].dim())]
    out = there[0].new_zeros(sum(n for _, n in wanted), *sizes)
    at = 0
    for value, n in wanted:
        if value is not None:
            out[(slice(at, at + n), *(slice(size) for size in value.shape[1:]))] = value
        at += n
    return out


def points(each_of: list[Point], counts: list[int]) -> Point:
    """One point with a time and levels for every sample."""
    repeat = max(counts) > 1

    def each(values: list[Any]) -> Any:
        made = np.array(values, np.float64)
        return np.repeat(made, counts, axis=0) if repeat else made

    first = each_of[0]
    alpha = {name: each([p.alpha[name] for p in each_of]) for name in first.alpha}
    return Point(each([p.t for p in each_of]), alpha, {n: each([p.sigma[n] for p in each_of]) for n in first.sigma})


def cut(x: State, point: Point, condition: Condition, at: int, end: int) -> tuple[State, Point, dict[str, Any]]:
    """Samples ``at`` to ``end`` of a stack."""
    tensors = {name: tensor[at:end] for name, tensor in items_of(x).items()}
    mask = x.mask[at:end] if isinstance(x, Fields) and x.mask is not None else None
    levels = [{name: level[at:end] for name, level in side.items()} for side in (point.alpha, point.sigma)]
    told = {name: value[at:end] if isinstance(value, Tensor) else value for name, value in condition.items()}
    return tensors[""] if isinstance(x, Tensor) else Fields(tensors, mask), Point(point.t[at:end], *levels), told


def unstack(parts: list[Output | Exception], counts: list[int]) -> list[Output | Exception]:
    """Answers by piece from answers by call."""
    if len(parts) == 1 and not isinstance(parts[0], Exception):
        return [*_split(parts[0], counts)]
    singles: list[Output | Exception] = []
    for part in parts:
        singles += [part] if isinstance(part, Exception) else _split(part, [1] * samples_of(part.clean))
    answers: list[Output | Exception] = []
    at = 0
    for n in counts:
        mine, at = singles[at : at + n], at + n
        failed = next((one for one in mine if isinstance(one, Exception)), None)
        if failed is not None:
            answers.append(failed)
            continue
        fine = [one for one in mine if not isinstance(one, Exception)]
        variance = None if fine[0].variance is None else join([one.variance for one in fine])
        answers.append(Output(join([one.clean for one in fine]), variance))
    return answers


def _split(output: Output, counts: list[int]) -> list[Output]:
    clean, variance = _apart(output.clean, counts), _apart(output.variance, counts)
    return [Output(*pair) for pair in zip(clean, variance, strict=True)]


def _apart(x: State | None, counts: list[int]) -> Sequence[Any]:
    if x is None:
        return [None] * len(counts)
    if isinstance(x, Tensor):
        return torch.split(x, counts)
    masks: Sequence[Any] = [None] * len(counts) if x.mask is None else torch.split(x.mask, counts)
    columns = {name: torch.split(tensor, counts) for name, tensor in x.items()}
    return [Fields({name: parts[i] for name, parts in columns.items()}, mask) for i, mask in enumerate(masks)]


def padded(x: State, length: int, padding: Padding) -> State:
    """``x`` with its padded axes grown to ``length``, and a mask that says what is real."""
    grown = {}
    for name, tensor in items_of(x).items():
        shape = [length if axis in padding.get(name, ()) else n for axis, n in enumerate(tensor.shape)]
        out = tensor if list(tensor.shape) == shape else tensor.new_zeros(shape)
        if out is not tensor:
            out[tuple(slice(n) for n in tensor.shape)] = tensor
        grown[name] = out
    if isinstance(x, Tensor):
        return grown[""]
    name, axes = next(iter(padding.items()))
    mask = torch.zeros(samples_of(x), length, dtype=torch.bool, device=x[name].device)
    mask[:, : x[name].shape[axes[0]]] = True if x.mask is None else x.mask
    return Fields(grown, mask)


def crop(answer: Output | Exception, length: int, padding: Padding | None) -> Output | Exception:
    """An answer without its padding: padded axes cut back to ``length``; 0 leaves it."""
    if isinstance(answer, Exception) or not padding or not length:
        return answer
    clean = _cropped(answer.clean, length, padding)
    return Output(clean, None if answer.variance is None else _cropped(answer.variance, length, padding))


def _cropped(x: State, length: int, padding: Padding) -> State:
    kept = {}
    for name, tensor in items_of(x).items():
        for axis in padding.get(name, ()):
            tensor = tensor.narrow(axis, 0, min(length, tensor.shape[axis]))
        kept[name] = tensor
    return like(x, kept) if isinstance(x, Tensor) else Fields(kept, None if x.mask is None else x.mask[:, :length])
