"""The only sampling loop: init, step, run.

A `Run`'s whole state is (registers, row, key): save it, move it to another machine, and it goes on to the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from perrin.diffusion.denoiser import Condition, Denoiser
from perrin.diffusion.guidance import Guidance, Memory, Unguided, evaluate
from perrin.diffusion.noise import normals
from perrin.diffusion.plan import Draw, Plan, Terms
from perrin.errors import InvalidInput, SamplingError

__all__ = ["Run", "sample", "start"]

Noise = Callable[[int], npt.ArrayLike | Tensor] | npt.ArrayLike | Tensor


class Run:
    """A sampling run in progress.

    Attributes:
        plan: the table it follows.
        row: the next row to compute.
        seeds: one per sample.
    """

    def __init__(
        self,
        guidance: Guidance | Denoiser,
        plan: Plan,
        *,
        shape: Sequence[int],
        seeds: Sequence[int],
        condition: Condition | None = None,
        noise: Noise | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not seeds:
            raise InvalidInput("seeds", list(seeds), "at least one seed")
        self.guidance: Guidance = Unguided(guidance) if isinstance(guidance, Denoiser) else guidance
        self.plan = plan
        self.shape = tuple(shape)
        self.seeds = tuple(seeds)
        self.condition = dict(condition or {})
        self.row = 0
        self._noise = noise
        self._dtype, self._device = dtype, torch.device(device)
        self._memory: Memory = {}
        zero = torch.zeros((len(self.seeds), *self.shape), dtype=dtype, device=self._device)
        self._registers = [plan.start * self._draw(0), *[zero] * (plan.registers - 1)]
        self._clean = zero

    @property
    def done(self) -> bool:
        """Every row has been computed."""
        return self.row >= len(self.plan)

    @property
    def clean(self) -> Tensor:
        """(B, *shape) the latest clean estimate; zeros before the first row."""
        return self._clean

    @property
    def result(self) -> Tensor:
        """(B, *shape) the samples, once `done`."""
        if not self.done:
            raise SamplingError(f"row {self.row} of {len(self.plan)} is next; the result is there after the last")
        return self._registers[0]

    @torch.inference_mode()
    def step(self) -> None:
        """Compute one row.

        Raises:
            SamplingError: the run is over, or the network returned numbers that are not finite.
        """
        if self.done:
            raise SamplingError(f"all {len(self.plan)} rows are computed; start another run")
        row = self.plan.rows[self.row]
        sources: dict[Any, Tensor] = dict(enumerate(self._registers))
        x = self._sum(row.input, sources)
        sources["x"] = x
        outputs = evaluate(self.guidance.branches(self.condition, row.t), x, row.t, row.alpha, row.sigma)
        estimate, direction, memory = self.guidance.combine(outputs, x, row.t, self._memory)
        if estimate.shape != x.shape:
            got, wanted = tuple(estimate.shape), tuple(x.shape)
            raise SamplingError(f"row {self.row}: the network returned shape {got}, wanted {wanted}")
        if x.device.type == "cpu" and not torch.isfinite(estimate).all():
            raise SamplingError(f"row {self.row} of {len(self.plan)} (t = {row.t:g}): the network returned NaN or inf")
        sources["estimate"], sources["direction"] = estimate, direction
        written = {register: self._sum(terms, sources) for register, terms in row.writes}
        for register, value in written.items():
            self._registers[register] = value
        self._memory, self._clean = memory, estimate
        self.row += 1

    def run(self) -> Tensor:
        """Compute every row that is left, and return the result."""
        while not self.done:
            self.step()
        return self.result

    def save(self) -> bytes:
        """The state as a safetensors file, to be handed to `restore` of a run started with the same arguments."""
        tensors = {f"register.{i}": r.contiguous().clone() for i, r in enumerate(self._registers)}
        tensors["clean"] = self._clean.contiguous().clone()
        tensors |= {f"memory.{k}": v.contiguous().clone() for k, v in self._memory.items()}
        key = {"row": self.row, "plan": self.plan.digest, "seeds": list(self.seeds), "shape": list(self.shape)}
        return safetensors.torch.save(tensors, metadata={"run": json.dumps(key)})

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
        mine = {"plan": self.plan.digest, "seeds": list(self.seeds), "shape": list(self.shape)}
        for name, value in mine.items():
            if key.get(name) != value:
                raise InvalidInput("state", f"the state of a run with another {name}", f"{name} {value}")
        moved = {name: t.to(self._device, self._dtype) for name, t in tensors.items()}
        self._registers = [moved[f"register.{i}"] for i in range(self.plan.registers)]
        self._clean = moved["clean"]
        self._memory = {n.removeprefix("memory."): t for n, t in moved.items() if n.startswith("memory.")}
        self.row = int(key["row"])

    def _sum(self, terms: Terms, sources: dict[Any, Tensor]) -> Tensor:
        """The weighted sum of ``terms``, in their order; a single term of weight 1 costs nothing."""
        total: Tensor | None = None
        for source, weight in terms:
            value = self._draw(source.index) if isinstance(source, Draw) else sources[source]
            scaled = value if weight == 1 else value * weight
            total = scaled if total is None else total + scaled
        return torch.zeros_like(self._registers[0]) if total is None else total

    def _draw(self, index: int) -> Tensor:
        """(B, *shape) draw ``index`` of every sample."""
        if self._noise is None:
            made: Any = normals(self.seeds, index, self.shape)
        elif callable(self._noise):
            made = self._noise(index)
        elif index == 0:
            made = self._noise
        else:
            made = normals(self.seeds, index, self.shape)
        drawn = torch.as_tensor(made).to(self._device, self._dtype)
        if drawn.shape != (len(self.seeds), *self.shape):
            raise InvalidInput("noise", tuple(drawn.shape), f"shape {(len(self.seeds), *self.shape)}")
        return drawn


def start(guidance: Guidance | Denoiser, plan: Plan, **options: Any) -> Run:
    """A run at its first row; see `Run` for the options."""
    return Run(guidance, plan, **options)


def sample(guidance: Guidance | Denoiser, plan: Plan, **options: Any) -> Tensor:
    """Sample to the end: (B, *shape); see `Run` for the options.

    Args:
        guidance: a guided denoiser, or a denoiser as it is.
        plan: from a solver.
        options: ``shape`` of one sample, ``seeds`` one per sample, ``condition``, ``noise`` (the starting noise, or a
            callable from draw number to noise), ``dtype``, ``device``.
    """
    return Run(guidance, plan, **options).run()
