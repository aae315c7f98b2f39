"""The only sampling loop: init, step, run.

A `Run`'s whole state is (registers, row, key): save it, move it to another machine, and it goes on to the same result.
A row is computed in two halves, so that an engine may evaluate the branches of many runs at once: `Run.request` says
what to evaluate, `Run.apply` takes the answers. `Run.step` does both.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from perrin.diffusion.categorical import CategoricalPlan
from perrin.diffusion.denoiser import Condition, Denoiser, Output, Point
from perrin.diffusion.guidance import Branch, Guidance, Memory, Unguided, evaluate
from perrin.diffusion.noise import Draws, uniforms
from perrin.diffusion.plan import Draw, Plan, Row, Terms, Weight
from perrin.diffusion.state import Fields, Space, State, items_of
from perrin.errors import Degenerate, InvalidInput, SamplingError

__all__ = ["Evaluation", "Noise", "Run", "sample", "start"]

Noise = Callable[[int], npt.ArrayLike | Tensor] | npt.ArrayLike | Tensor
"""Starting noise, or a function from a draw's number to noise; for comparisons with other libraries."""


CHECK_EVERY = 8
"""Estimates are looked at for NaN so many at a time: each look costs as much as a row, and the row is named anyway."""

NOT_FINITE = "the network returned NaN or infinity; check its input, weights and precision"


class Evaluation(NamedTuple):
    """What a row wants evaluated: branches at a point."""

    branches: Sequence[Branch]
    x: State
    point: Point


class Run:
    """A sampling run in progress.

    Args:
        guidance: a guided denoiser, or a denoiser as it is.
        plan: from a solver; for a state of several fields, one per field, all of one length.
        shape: of one sample; for several fields, by name.
        seeds: one per sample.
        condition: the network's condition.
        noise: instead of Perrin's own; only for a state that is one tensor.
        initial: clean sample (B, ...) to start from, noised to the plan's first point; by default none, pure noise. A
            tuple for plans that keep several copies (EDICT).
        mask: (B, N) True where an entry of the fields is real.
        spaces: where a field lives, by its name ('' for a plain tensor).
        dtype: of the registers.
        device: of the registers.

    Attributes:
        plan: the table it follows.
        row: the next row to compute.
        seeds: one per sample.
        dtype: of the registers.
    """

    def __init__(
        self,
        guidance: Guidance | Denoiser,
        plan: Plan | Mapping[str, Plan | CategoricalPlan],
        *,
        shape: Sequence[int] | Mapping[str, Sequence[int]],
        seeds: Sequence[int],
        condition: Condition | None = None,
        noise: Noise | None = None,
        initial: State | tuple[State, ...] | None = None,
        mask: Tensor | None = None,
        spaces: Mapping[str, Space] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(seeds):
            raise InvalidInput("seeds", list(seeds), "at least one seed")
        self.guidance: Guidance = Unguided(guidance) if isinstance(guidance, Denoiser) else guidance
        self._plans = {"": plan} if isinstance(plan, Plan) else dict(plan)
        self._shapes = {n: tuple(s) for n, s in (shape.items() if isinstance(shape, Mapping) else [("", shape)])}
        if self._plans.keys() != self._shapes.keys() or len({len(p) for p in self._plans.values()}) != 1:
            raise InvalidInput(
                "plan", {n: len(p) for n, p in self._plans.items()}, f"one length for {list(self._shapes)}"
            )
        gaussian = [p for p in self._plans.values() if isinstance(p, Plan)]
        if not gaussian:
            raise InvalidInput("plan", list(self._plans), "at least one Gaussian field")
        self.plan = gaussian[0]
        self.seeds = tuple(int(seed) for seed in seeds)
        self.condition = dict(condition or {})
        self.row = 0
        self.mask = mask
        self._plain = isinstance(plan, Plan)
        self._noise, self._spaces = noise, dict(spaces or {})
        self.dtype, self._device = dtype, torch.device(device)
        self._initial = initial
        self._memory: Memory = {}
        self._unchecked: list[tuple[int, str, Tensor]] = []
        self._sums: list[tuple[int, str, Tensor]] = []
        self._draws = {
            name: Draws(self.seeds, self._shapes[name], name, (0, *p.draws))
            for name, p in self._plans.items()
            if isinstance(p, Plan)
        }
        self._registers = {name: self._first(name, p, initial) for name, p in self._plans.items()}
        self._clean: State = self._state({name: torch.zeros_like(r[0]) for name, r in self._registers.items()})

    def _first(
        self, name: str, plan: Plan | CategoricalPlan, initial: State | tuple[State, ...] | None
    ) -> list[Tensor]:
        """A field's registers before the first row."""
        if isinstance(plan, CategoricalPlan):
            return [plan.start(self._uniform(name, plan, 0))]
        drawn = self._draw(0, name)
        begin = drawn * _factor(plan.start, drawn)
        if initial is not None:
            scale = plan.rows[0].alpha if plan.signal is None else plan.signal
            given = initial if isinstance(initial, tuple) else (initial,) * plan.copies
            cleans = [items_of(state)[name].to(self._device, self.dtype) for state in given]
            begins = [clean * _factor(scale, clean) + begin for clean in cleans]
            return begins + [torch.zeros_like(begin)] * (plan.registers - plan.copies)
        return [begin] * plan.copies + [torch.zeros_like(begin)] * (plan.registers - plan.copies)

    @property
    def done(self) -> bool:
        """Every row has been computed."""
        return self.row >= len(self.plan)

    @property
    def clean(self) -> Any:
        """(B, ...) the latest clean estimate; zeros before the first row."""
        return self._clean

    @property
    def result(self) -> Any:
        """(B, ...) the samples, once `done`.

        Raises:
            SamplingError: a row is left to compute; or, as Degenerate, on an accelerator, the network returned NaN or
                infinity at one.
        """
        if not self.done:
            raise SamplingError(f"row {self.row} of {len(self.plan)} is next; the result is there after the last")
        self._settle()
        return self.state

    @property
    def state(self) -> Any:
        """(B, ...) register 0: the noisy samples between two rows."""
        return self._state({name: registers[0] for name, registers in self._registers.items()})

    @property
    def copies(self) -> tuple[Any, ...]:
        """The registers that began as copies of the state: one, or EDICT's pair."""
        return tuple(
            self._state({name: registers[i] for name, registers in self._registers.items()})
            for i in range(self.plan.copies)
        )

    def request(self) -> Evaluation:
        """What the next row wants evaluated.

        Raises:
            SamplingError: the run is over.
        """
        if self.done:
            raise SamplingError(f"all {len(self.plan)} rows are computed; start another run")
        x, alpha, sigma = {}, {}, {}
        for name, plan in self._plans.items():
            x[name] = self._registers[name][0]
            if isinstance(plan, Plan):
                row = plan.rows[self.row]
                x[name] = self._sum(name, row.input, dict(enumerate(self._registers[name])))
                alpha[name], sigma[name] = row.alpha, row.sigma
        t = self.plan.rows[self.row].t
        state = self._state(x)
        branches = self.guidance.branches(self.condition, t)
        if self.row and any(branch.denoiser.recall for branch in branches):
            branches = [self._reminded(branch) for branch in branches]
        return Evaluation(branches, state, Point(t, alpha, sigma))

    def _reminded(self, branch: Branch) -> Branch:
        """The branch, whose network is told the last estimate if it can be."""
        if not branch.denoiser.recall:
            return branch
        told = {f"estimate.{n}".rstrip("."): x.to(self.dtype) for n, x in items_of(self._clean).items()}
        return branch._replace(condition={**branch.condition, **told})

    def apply(self, evaluation: Evaluation, outputs: Sequence[Output]) -> None:
        """Take the answers to `request` and write the registers.

        Raises:
            SamplingError: the network returned another shape; or, as Degenerate, at a row since the last look (one in
                eight), numbers that are not finite. It names the row.
        """
        x, t = evaluation.x, evaluation.point.t
        estimate, direction, memory = self.guidance.combine([o.clean for o in outputs], x, t, self._memory)
        before, clean, along = items_of(x), items_of(estimate), items_of(direction)
        variance = items_of(outputs[0].variance) if outputs[0].variance is not None else {}
        for name, plan in self._plans.items():
            if isinstance(plan, CategoricalPlan):
                draw = partial(self._uniform, name, plan, self.row + 1)
                self._registers[name][0] = plan.advance(self.row, before[name], clean[name], draw)
                continue
            self._check(name, clean[name], before[name])
            clean[name] = self._project(name, clean[name])
            along[name] = clean[name] if direction is estimate else self._project(name, along[name])
            row = plan.rows[self.row]
            writes = plan.undirected[self.row] if direction is estimate else row.writes
            sources: dict[Any, Tensor] = dict(enumerate(self._registers[name]))
            sources |= {"x": before[name], "estimate": clean[name], "direction": along[name]}
            spread = _spread(row, variance.get(name))
            written = {register: self._sum(name, terms, sources, spread) for register, terms in writes}
            for register, value in written.items():
                self._registers[name][register] = self._project(name, value)
        self._memory, self._clean = memory, self._state(clean)
        self.row += 1

    def under(self, plan: Plan) -> Run:
        """A run of one field at its first row, like this one in all but the plan."""
        return Run(
            self.guidance, plan, shape=self._shapes[""], seeds=self.seeds, condition=self.condition, noise=self._noise,
            initial=self._initial, mask=self.mask, spaces=self._spaces, dtype=self.dtype, device=self._device,
        )  # fmt: skip

    def fork(self, plan: Plan | None = None) -> Run:
        """A copy that goes on from here alone; under ``plan``, of as many rows and registers, if one is given."""
        other = copy.copy(self)
        other._registers = {name: list(registers) for name, registers in self._registers.items()}
        other._unchecked, other._sums = [], []
        if plan is not None:
            if (len(plan), plan.registers, plan.draws) != (len(self.plan), self.plan.registers, self.plan.draws):
                raise InvalidInput(
                    "plan", f"{len(plan)} rows", f"{len(self.plan)} rows with as many registers and draws"
                )
            other.plan, other._plans = plan, {"": plan}
        return other

    def replace(self, state: State) -> None:
        """Put another state into register 0, between two rows."""
        for name, tensor in items_of(state).items():
            self._registers[name][0] = tensor

    @torch.inference_mode()
    def step(self) -> None:
        """Compute one row."""
        self._step()

    def _step(self) -> None:
        evaluation = self.request()
        self.apply(evaluation, evaluate(evaluation.branches, evaluation.x, evaluation.point))

    def run(self) -> Any:
        """Compute every row that is left, and return the result."""
        with torch.inference_mode():
            while not self.done:
                self._step()
        return self.result

    # --- state on disk ------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """The state as a safetensors file, to be handed to `restore` of a run started with the same arguments."""
        self._settle()
        tensors = {f"{n}/register/{i}": r for n, rs in self._registers.items() for i, r in enumerate(rs)}
        tensors |= {f"{name}/clean": tensor for name, tensor in items_of(self._clean).items()}
        tensors |= {f"{n}/memory/{k}": v for k, m in self._memory.items() for n, v in items_of(m).items()}
        key = {"row": self.row, **self._key()}
        copies = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        return safetensors.torch.save(copies, metadata={"run": json.dumps(key)})

    def restore(self, state: bytes) -> None:
        """Go on from what `save` returned.

        Raises:
            InvalidInput: the state is broken, or belongs to a run with another plan, shape or seeds.
        """
        try:
            tensors = safetensors.torch.load(state)
            length = int.from_bytes(state[:8], "little")
            key = json.loads(json.loads(state[8 : 8 + length])["__metadata__"]["run"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InvalidInput("state", f"{len(state)} bytes", f"a saved sampler state ({error})") from None
        for name, value in self._key().items():
            if key.get(name) != value:
                raise InvalidInput("state", f"the state of a run with another {name}", f"{name} {value}")
        there = {n: t.to(self._device) for n, t in tensors.items()}
        for name, registers in self._registers.items():
            self._registers[name] = [there[f"{name}/register/{i}"].to(old.dtype) for i, old in enumerate(registers)]
        self._clean = self._state({name: there[f"{name}/clean"].to(self.dtype) for name in self._plans})
        memory: dict[str, dict[str, Tensor]] = {}
        for path, tensor in there.items():
            name, _, rest = path.partition("/")
            if rest.startswith("memory/"):
                memory.setdefault(rest.removeprefix("memory/"), {})[name] = tensor.to(self.dtype)
        self._memory = {key: self._state(fields) for key, fields in memory.items()}
        self.row = int(key["row"])

    def _key(self) -> dict[str, Any]:
        return {
            "plan": {name: plan.digest for name, plan in self._plans.items()},
            "seeds": list(self.seeds),
            "shape": {name: list(shape) for name, shape in self._shapes.items()},
        }

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def _state(self, tensors: Mapping[str, Tensor]) -> State:
        return tensors[""] if self._plain else Fields(tensors, self.mask)

    def _project(self, name: str, x: Tensor) -> Tensor:
        space = self._spaces.get(name)
        return x if space is None else space(x, self.mask)

    def _check(self, name: str, estimate: Tensor, x: Tensor) -> None:
        if estimate.shape != x.shape:
            got = f"the network returned {tuple(estimate.shape)}, wanted {tuple(x.shape)}"
            raise SamplingError(self._where(self.row, name) + got)
        self._unchecked.append((self.row, name, estimate))
        if len(self._unchecked) >= CHECK_EVERY:
            self._inspect()

    def _inspect(self) -> None:
        """Sum what was estimated since the last time: a sum that is finite has finite terms."""
        kept, self._unchecked = self._unchecked, []
        for row, name, estimate in kept:
            total = estimate.sum()
            if estimate.device.type != "cpu":
                self._sums.append((row, name, total))  # To read it now would wait for the device.
            elif not math.isfinite(total) and not torch.isfinite(estimate).all():
                raise Degenerate(self._where(row, name) + NOT_FINITE)

    def _settle(self) -> None:
        """Raise if the network returned NaN or infinity at any row; waits for the device."""
        self._inspect()
        sums, self._sums = self._sums, []
        finite = torch.isfinite(torch.stack([total for _, _, total in sums])).tolist() if sums else []
        for (row, name, _), fine in zip(sums, finite, strict=True):
            if not fine:
                raise Degenerate(self._where(row, name) + NOT_FINITE)

    def _where(self, row: int, name: str) -> str:
        place = f"row {row} of {len(self.plan)} (t = {self.plan.rows[row].t:g})"
        return place + (f", field {name}: " if name else ": ")

    def _sum(self, name: str, terms: Terms, sources: dict[Any, Tensor], spread: Tensor | None = None) -> Tensor:
        """The weighted sum of ``terms``, in their order; a single term of weight 1 costs nothing."""
        total: Tensor | None = None
        for source, weight in terms:
            if isinstance(source, Draw):
                value = self._draw(source.index, name)
                value = value if spread is None else value * spread
            else:
                value = sources[source]
            scaled = value if weight == 1 else value * _factor(weight, value)
            total = scaled if total is None else total + scaled
        return torch.zeros_like(self._registers[name][0]) if total is None else total

    def _draw(self, index: int, name: str) -> Tensor:
        """(B, ...) draw ``index`` of every sample."""
        shape = self._shapes[name]
        made: Any
        if callable(self._noise):
            made = self._noise(index)
        elif self._noise is not None and index == 0:
            made = self._noise
        else:
            made = self._draws[name](index)
        drawn = torch.as_tensor(np.asarray(made) if not isinstance(made, Tensor) else made)
        if drawn.shape != (len(self.seeds), *shape):
            raise InvalidInput("noise", tuple(drawn.shape), f"shape {(len(self.seeds), *shape)}")
        return self._project(name, drawn.to(self._device, self.dtype, non_blocking=True))

    def _uniform(self, name: str, plan: CategoricalPlan, index: int) -> Tensor:
        """(B, ..., K) uniform numbers for a categorical field."""
        made = uniforms(self.seeds, index, (*self._shapes[name], plan.process.classes), name)
        return torch.as_tensor(made).to(self._device, non_blocking=True)


def _factor(weight: Weight, like: Tensor) -> Any:
    """A number, or per-channel numbers shaped to multiply (B, C, ...)."""
    if isinstance(weight, tuple):
        column = torch.tensor(weight, dtype=like.dtype).to(like.device, non_blocking=True)
        return column.reshape(-1, *[1] * (like.dim() - 2))
    return weight


def _spread(row: Row, variance: Tensor | None) -> Tensor | None:
    """Standard deviation by element, where the row lets the network choose between two variances."""
    if row.learned is None:
        return None
    if variance is None:
        raise InvalidInput("sampler", "a learned variance", "a denoiser with variance=True, whose network predicts one")
    low, high = row.learned
    fraction = (variance + 1) / 2
    return torch.exp((fraction * high + (1 - fraction) * low) / 2)


def start(guidance: Guidance | Denoiser, plan: Plan | Mapping[str, Plan | CategoricalPlan], **options: Any) -> Run:
    """A run at its first row; see `Run` for the options."""
    return Run(guidance, plan, **options)


def sample(guidance: Guidance | Denoiser, plan: Plan | Mapping[str, Plan | CategoricalPlan], **options: Any) -> Any:
    """Sample to the end: (B, *shape), or `Fields`; see `Run` for the options."""
    return Run(guidance, plan, **options).run()
