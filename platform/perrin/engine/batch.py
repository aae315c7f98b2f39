"""Many runs, one network call: rows of unlike requests stacked along the batch axis.

Every branch that a row wants evaluated (`perrin.diffusion.guidance.Branch`) is a piece. Pieces of one denoiser whose
samples and conditions have the same shapes and dtypes may share a call; times and noise levels are then (B,) arrays. A
denoiser that is not plainly a `Denoiser` (one that differentiates, say) is called for each request alone, and so is a
strict request.

Where a runtime declares which axes of a field may be padded, pieces of one bucket of lengths share a call under a mask.
Buckets are narrow, so that less than a fifth of an axis is padding. Where a network says that a condition which is
missing, or smaller, is one of zeros (its attribute ``fills``, see `perrin.nn.lora.Adapted`), that keeps nobody apart.

A call that raises is repeated request by request, so that only the guilty one ends. One that runs out of memory is
split, down to single samples.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser, Output, Point
from perrin.diffusion.guidance.base import Branch, evaluate
from perrin.diffusion.sampling import Evaluation
from perrin.diffusion.state import Fields, State, items_of
from perrin.engine.memory import is_out_of_memory
from perrin.engine.stack import Padding, bucket, conditions, crop, cut, join, padded, points, samples_of, unstack
from perrin.errors import SamplingError

__all__ = ["Call", "Key", "Keys", "Member", "Stacker"]


class Key(NamedTuple):
    """What pieces of one call have in common: the denoiser's identity; shape and dtype of a sample; those of the
    conditions."""

    denoiser: int
    shape: Hashable
    traits: Hashable


Call = Callable[[Key | None, int, Callable[[], Any]], Any]
"""Makes one network call of so many samples, and measures it."""

MEMO = 8
"""Stacked conditions kept for the next tick, one per key."""

Answer = list[Output] | Exception
"""A request's outputs, one per branch; or why there are none."""


class Member(NamedTuple):
    """One request's evaluation in a tick, with the key of each of its branches; None for a branch that shares with
    nobody."""

    evaluation: Evaluation
    keys: Sequence[Key | None]

    @property
    def samples(self) -> int:
        """How many samples the network computes for it."""
        return len(self.keys) * samples_of(self.evaluation.x)


class _Piece(NamedTuple):
    member: int
    place: int
    x: Any
    point: Point
    branch: Branch
    key: Key | None


class Keys:
    """The keys of one request's branches. A condition is looked at once, not at every row."""

    def __init__(self, padding: Padding | None = None) -> None:
        self._padding = padding
        self._known: list[tuple[Denoiser, Condition, Hashable, Key | None]] = []

    def of(self, evaluation: Evaluation) -> list[Key | None]:
        """One key per branch of ``evaluation``."""
        x, point = evaluation.x, evaluation.point
        levels = point.alpha.get("")
        shape: Hashable = (x.shape, x.dtype) if isinstance(x, Tensor) else None
        if not isinstance(levels, float) or shape is None or self._padding:
            shape = self._shape(x, point)
        found = []
        for branch in evaluation.branches:
            for denoiser, condition, known, key in self._known:
                if condition is branch.condition and denoiser is branch.denoiser and known == shape:
                    found.append(key)
                    break
            else:
                found.append(self._look(branch.denoiser, branch.condition, shape))
        return found

    def _shape(self, x: State, point: Point) -> Hashable:
        """Everything about samples that a stack must agree on, lengths of padded axes rounded up to their bucket."""
        axes = self._padding or {}
        parts = []
        for name, tensor in items_of(x).items():
            sizes = [bucket(n) if axis in axes.get(name, ()) else n for axis, n in enumerate(tensor.shape)]
            level = point.alpha.get(name)
            parts.append((name, tuple(sizes[1:]), tensor.dtype, len(level) if isinstance(level, tuple) else None))
        masked = isinstance(x, Fields) and x.mask is not None
        return (tuple(parts), None if self._padding else masked, samples_of(x))

    def _look(self, denoiser: Denoiser, condition: Condition, shape: Any) -> Key | None:
        key: Key | None = None
        if type(denoiser) is Denoiser:
            fills = fills_of(denoiser)
            told = [(name, value) for name, value in sorted(condition.items()) if not name.startswith(fills)]
            traits = tuple(_trait(name, value) for name, value in told)
            body = (tuple(shape[0][1:]), shape[1]) if isinstance(shape[0], torch.Size) else shape[:2]
            key = Key(id(denoiser), body, traits) if all(traits) else None
        self._known = [*self._known[-3:], (denoiser, condition, shape, key)]
        return key


def fills_of(denoiser: Denoiser) -> tuple[str, ...]:
    """How the names of those conditions of a network begin that are zeros where they are missing."""
    fills: tuple[str, ...] = getattr(denoiser.network, "fills", ())
    return fills


def _trait(name: str, value: Any) -> Hashable:
    """What conditions must agree on to be stacked; None where they cannot be."""
    if isinstance(value, Tensor):
        return (name, value.shape[1:], value.dtype) if value.dim() else None
    return (name, type(value), value) if value is None or isinstance(value, bool | int | float | str) else None


class Stacker:
    """Evaluates members together.

    Attributes:
        entries: entries of padded axes that were computed so far.
        padded: how many of those were padding.
    """

    def __init__(self, padding: Padding | None = None) -> None:
        self.entries = self.padded = 0
        self._padding = padding
        self._stacked: OrderedDict[Key | None, tuple[list[tuple[Condition, int]], dict[str, Any]]] = OrderedDict()
        self._apart: set[Key] = set()

    def evaluate(self, members: Sequence[Member], sizes: Sequence[int], most: int, call: Call) -> list[Answer]:
        """The outputs of every member's branches, or why there are none.

        Args:
            members: of one lane: their first keys are the same.
            sizes: samples in each of the calls; a single request's may be more.
            most: samples that fit into memory; a single request's that are more are computed in parts.
            call: makes each network call.
        """
        groups: dict[Hashable, list[_Piece]] = {}
        outputs: list[list[Any]] = [[None] * len(m.keys) for m in members]
        broken: dict[int, Exception] = {}
        for number, (evaluation, keys) in enumerate(members):
            for place, (branch, key) in enumerate(zip(evaluation.branches, keys, strict=True)):
                apart: Hashable = key
                if len(members) == 1:
                    apart = None
                elif key is None or key in self._apart:
                    apart = (key, number)
                piece = _Piece(number, place, evaluation.x, evaluation.point, branch, key)
                groups.setdefault(apart, []).append(piece)
        for pieces in groups.values():
            for pack in [pieces] if len(members) == 1 else _packs(pieces, sizes, most):
                for piece, answer in zip(pack, self._pack(pack, most, call), strict=True):
                    if isinstance(answer, Exception):
                        broken.setdefault(piece.member, answer)
                    else:
                        outputs[piece.member][piece.place] = answer
        return [broken.get(number, found) for number, found in enumerate(outputs)]

    def forget(self) -> None:
        """Let go of the conditions kept for the next tick."""
        self._stacked.clear()

    def _pack(self, pack: list[_Piece], most: int, call: Call) -> Sequence[Output | Exception]:
        """The answers to pieces that go into one call."""
        first = pack[0]
        if pack[-1].member == first.member:
            return self._one(pack, most, call)
        try:
            return self._together(pack, most, call)
        except Exception:  # a plugin's network may raise anything: find out for whom
            answers = [answer for mine in _by_member(pack) for answer in self._one(mine, most, call)]
        if first.key is not None and not any(isinstance(answer, Exception) for answer in answers):
            self._apart.add(first.key)  # each alone is fine, so it is the mixed batch that the network cannot take
        return answers

    def _one(self, pack: list[_Piece], most: int, call: Call) -> Sequence[Output | Exception]:
        """One request's pieces, exactly as `Run.step` does it; in parts where memory is short."""
        first = pack[0]
        branches, total = [p.branch for p in pack], len(pack) * samples_of(first.x)
        divisible = total > 1 and all(p.key is not None for p in pack)
        if total <= most or not divisible:
            try:
                found: list[Output] = call(first.key, total, lambda: evaluate(branches, first.x, first.point))
                return found
            except Exception as error:
                if not (divisible and is_out_of_memory(error)):
                    return [error] * len(pack)
        answers: list[Output | Exception] = []
        for piece in pack:
            try:
                answers += self._together([piece], max(1, min(most, total // 2)), call)
            except Exception as error:
                answers.append(error)
        return answers

    def _together(self, pack: list[_Piece], most: int, call: Call) -> Sequence[Output | Exception]:
        """Stacked, in as few calls as memory allows."""
        key, denoiser = pack[0].key, pack[0].branch.denoiser
        x, condition, lengths = self._stack(key, pack)
        counts = [samples_of(p.x) for p in pack]
        total = sum(counts)
        point = points([p.point for p in pack], counts)
        parts: list[Output | Exception] = []
        at, size = 0, min(total, most)
        while at < total:
            end = min(total, at + size)
            part = (x, point, condition) if size >= total else cut(x, point, condition, at, end)
            try:
                answer: Output = call(key, end - at, partial(denoiser.evaluate, *part))
                _check(answer.clean, part[0])
                parts.append(answer)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if end - at > 1:
                    size = (end - at) // 2
                    continue
                parts.append(error)
            at = end
        return [crop(answer, n, self._padding) for answer, n in zip(unstack(parts, counts), lengths, strict=True)]

    def _stack(self, key: Key | None, pack: list[_Piece]) -> tuple[State, dict[str, Any], list[int]]:
        """Samples and conditions of all pieces, and the length of each one's padded axis (0: none)."""
        counts = [samples_of(p.x) for p in pack]
        wanted = [(p.branch.condition, n) for p, n in zip(pack, counts, strict=True)]
        known = self._stacked.get(key)
        if (
            known is None
            or len(known[0]) != len(wanted)
            or any(a is not b or n != m for (a, n), (b, m) in zip(known[0], wanted, strict=True))
        ):
            fills = fills_of(pack[0].branch.denoiser)
            self._stacked[key] = known = (wanted, conditions(wanted, fills))
            if len(self._stacked) > MEMO:
                self._stacked.popitem(last=False)
        condition = known[1]
        if not self._padding:
            return join([p.x for p in pack]), condition, [0] * len(pack)
        name, axes = next(iter(self._padding.items()))
        lengths = [items_of(p.x)[name].shape[axes[0]] for p in pack]
        longest = max(lengths)
        rows = list(zip(lengths, counts, strict=True))
        self.entries += longest * sum(counts)
        self.padded += sum((longest - length) * n for length, n in rows)
        xs = [padded(p.x, longest, self._padding) for p in pack]
        if isinstance(pack[0].x, Tensor) and min(lengths) < longest:
            mask = torch.cat([(torch.arange(longest) < length).expand(n, -1) for length, n in rows])
            condition = {**condition, "mask": mask.to(pack[0].x.device)}
        return join(xs), condition, lengths


def _check(clean: State, x: State) -> None:
    """Outputs of another shape cannot be told apart by request."""
    wanted = items_of(x)
    for name, tensor in items_of(clean).items():
        shape = wanted[name].shape
        if tensor.shape[: len(shape)] != shape:
            raise SamplingError(f"the network returned {tuple(tensor.shape)}, wanted {tuple(shape)}")


def _packs(pieces: list[_Piece], sizes: Sequence[int], most: int) -> list[list[_Piece]]:
    """Pieces in calls of about these sizes; a request's own pieces stay together."""
    packs: list[list[_Piece]] = []
    room, limits = 0, iter(sizes)
    for mine in _by_member(pieces):
        size = len(mine) * samples_of(mine[0].x)
        if not packs or size > room:
            packs.append([])
            room = min(next(limits, sizes[0]), most)
        packs[-1] += mine
        room -= size
    return packs


def _by_member(pieces: list[_Piece]) -> list[list[_Piece]]:
    found: dict[int, list[_Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.member, []).append(piece)
    return list(found.values())
