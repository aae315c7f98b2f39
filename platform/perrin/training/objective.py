r"""What a diffusion model is trained to do: noise a clean state, ask the network, and weigh its error.

A network F with coefficients c (see `perrin.diffusion.prediction`) stands for the clean estimate
D = c_skip x_t + c_out F. The F that makes D the clean state is a mixture of clean state and noise,

.. math::
    x_t = \alpha x_0 + \sigma\varepsilon, \qquad
    F^* = \frac{1 - c_{skip}\alpha}{c_{out}}\, x_0 - \frac{c_{skip}\sigma}{c_{out}}\,\varepsilon, \qquad
    L = \mathbb E\; w\, c_{out}^2\, \|F - F^*\|^2

whose two numbers are computed in float64. With the weight ``network`` the errors of F count alike, which is what the
simple losses of DDPM (epsilon), of v prediction and of flow matching (velocity) are. A state may have several fields
under a mask; a categorical field is noised by its own transition and pays the cross-entropy of the network's logits.

A teacher, instead of the data, may say what D should be: distillation needs no other loop.

References:
    Ho et al. (2020), eq. 14; Lipman et al., Flow Matching (2023), eq. 23; Karras et al. (2022), eq. 8; Austin et al.
    (2021), eq. 5; Guttenberg, Diffusion with Offset Noise (2023); Ge et al., Preserve Your Own Correlation (2023), eq.
    4 (shared noise); Salimans and Ho (2022), algorithm 2 (teachers);
    Saharia et al., Image Super-Resolution via Iterative Refinement (2021), eq. 6 (errors to the power of 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from perrin.diffusion import loss, process
from perrin.diffusion.categorical import Categorical
from perrin.diffusion.prediction import coefficients
from perrin.diffusion.process import Process
from perrin.diffusion.state import Fields, Space, State, items_of, like, rows_of
from perrin.errors import InvalidInput
from perrin.training.perceptual import Perceptual
from perrin.training.times import Times

__all__ = ["FieldObjective", "Loss", "Noised", "Objective", "Target", "drop"]


class FieldObjective(BaseModel):
    """How one field is noised and weighed.

    Attributes:
        prediction: what the network predicts of it; ``logits`` for a categorical field.
        share: factor on its loss.
        noise: of a categorical field, ``uniform``, ``absorbing`` (its last class), or the chance of each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: str | None = None
    share: float = Field(1.0, ge=0)
    noise: str | tuple[float, ...] = "uniform"


class Objective(BaseModel):
    """An objective, as a recipe writes it.

    Attributes:
        process: of `perrin.diffusion.process.from_config`.
        prediction: of `perrin.diffusion.prediction.PREDICTIONS`.
        weight: ``network``, or one of `perrin.diffusion.loss.WEIGHTS`.
        weight_options: of that weight.
        times: where to train.
        power: of an error. 1 takes the root of the weight too; a network trained so says the median, not the mean.
        offset_noise: deviation of a number that is added to the noise of a whole channel.
        shared_noise: share of the noise's variance that is the same in all frames of a clip (B, C, F, ...).
        perceptual: factor on the LPIPS distance of a picture's clean estimate, (B, 3 or 4, H, W), to the picture.
        fields: what is different for single fields, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: dict[str, Any] = {"kind": "flow"}
    prediction: str = "velocity"
    weight: str = "network"
    weight_options: dict[str, float] = {}
    times: Times = Times()
    power: Literal[1, 2] = 2
    offset_noise: float = Field(0.0, ge=0)
    shared_noise: float = Field(0.0, ge=0, le=1)
    perceptual: float = Field(0.0, ge=0)
    fields: dict[str, FieldObjective] = {}

    def loss(self, spaces: Mapping[str, Space] | None = None, classes: Mapping[str, int] | None = None) -> Loss:
        """The loss of this objective.

        Args:
            spaces: of fields that live in one, such as positions with zero mean.
            classes: numbers of classes of the categorical fields.
        """
        return Loss(self, spaces or {}, classes or {})


class Noised(NamedTuple):
    """A batch on its way to noise.

    Attributes:
        state: x_t, (B, ...) or `Fields`; classes where a field is categorical.
        clean: x_0, likewise.
        noise: what was added, likewise; zeros where a field is categorical.
        t: (B,) times, float64, on the CPU.
    """

    state: State
    clean: State
    noise: State
    t: Tensor


Target = Callable[[Noised, Mapping[str, Any]], State]
"""What the clean estimate should be for a noised batch under a condition; a teacher."""


class Loss:
    """Called with a network and a batch; see `Objective`."""

    def __init__(self, objective: Objective, spaces: Mapping[str, Space], classes: Mapping[str, int]) -> None:
        self.objective, self._spaces = objective, dict(spaces)
        self.process: Process = process.from_config(objective.process)
        self._kinds = {
            name: _categorical(objective.fields.get(name, FieldObjective()).noise, count)
            for name, count in classes.items()
        }
        if objective.weight != "network":
            loss.weight(objective.weight, 0.0, **objective.weight_options)
        self._perceptual = Perceptual("vgg") if objective.perceptual else None

    def noised(self, clean: State, generator: torch.Generator) -> Noised:
        """``clean`` (B, ...) at random times, drawn from ``generator`` alone.

        A state on an accelerator is noised there, from a seed that ``generator`` draws.
        """
        tensors = items_of(clean)
        first = next(iter(tensors.values()))
        t = self.objective.times.draw(len(first), self.process, generator)
        mask = clean.mask if isinstance(clean, Fields) else None
        alpha, sigma = (_put(f(t), first.device) for f in (self.process.alpha, self.process.sigma))
        if first.device.type != "cpu":
            seed = int(torch.randint(2**62, (), generator=generator))
            generator = torch.Generator(first.device).manual_seed(seed)
        noisy, noise = {}, {}
        for name, x in tensors.items():
            if name in self._kinds:
                noisy[name], noise[name] = self._scatter(x, self._kinds[name], alpha, generator), torch.zeros_like(x)
                continue
            e = self._noise(x, generator)
            if name in self._spaces:
                e = self._spaces[name](e, mask)
            noise[name] = e
            noisy[name] = rows_of(alpha, x).to(x) * x + rows_of(sigma, x).to(x) * e
        return Noised(like(clean, noisy), clean, like(clean, noise), torch.from_numpy(t))

    def __call__(
        self,
        network: Callable[..., Any],
        clean: State,
        condition: Mapping[str, Any],
        generator: torch.Generator,
        target: Target | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            network: ``network(x, t, **condition)``.
            clean: (B, ...) or `Fields`; elements that a mask leaves out count for nothing.
            condition: of the network.
            generator: of times and noise.
            target: a teacher; by default the clean state itself.

        Returns:
            The loss, a scalar; and that of each field by its name, where there are several, and ``perceptual``.
        """
        noised = self.noised(clean, generator)
        return self.of(network, noised, condition, None if target is None else target(noised, condition))

    def of(
        self, network: Callable[..., Any], noised: Noised, condition: Mapping[str, Any], wanted: State | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss at given noised states, if the clean estimate should be ``wanted``; by default the clean state."""
        inputs, told, scales = self._ask(noised)
        raw = network(inputs, told, **condition)
        answers = {"": raw} if isinstance(raw, Tensor) else dict(raw)
        noisy = items_of(noised.state)
        if answers.keys() != noisy.keys():
            raise InvalidInput("network", list(answers), f"an output for each of {list(noisy)}")
        mask = noised.state.mask if isinstance(noised.state, Fields) else None
        clean, noise = items_of(noised.clean), items_of(noised.noise)
        aims = clean if wanted is None else items_of(wanted)
        parts: dict[str, Tensor] = {}
        looks: Tensor | float = 0.0
        for name, answer in answers.items():
            if name in self._kinds:
                error = F.cross_entropy(answer.float().movedim(-1, 1), aims[name], reduction="none")
                weight = torch.ones(len(error), device=error.device)
            else:
                on_clean, on_noise, c_out, weight = scales[name]
                x = clean[name]
                aim = rows_of(on_clean, x).to(x) * x + rows_of(on_noise, x).to(x) * noise[name]
                if wanted is not None:
                    aim = aim + (aims[name] - x) / rows_of(c_out, x).to(x)
                error = (answer.float() - aim.float()).abs()
                if self.objective.power == 2:
                    error = error.square()
                else:
                    weight = weight.sqrt()
                if self._perceptual is not None:  # D - aim of D = c_out (F - aim of F)
                    estimate = aims[name] + rows_of(c_out, x).to(x) * (answer.float() - aim)
                    looks = looks + self._look(estimate, aims[name])
            parts[name] = _mean(error, weight, mask) * self._field(name).share
        total = torch.stack(list(parts.values())).sum()
        numbers = {name: part.detach() for name, part in parts.items()} if len(parts) > 1 else {}
        if isinstance(looks, Tensor):
            total, numbers["perceptual"] = total + self.objective.perceptual * looks, looks.detach()
        return total, numbers

    # ------------------------------------------------------------------------------------------------------------------

    def _ask(self, noised: Noised) -> tuple[State, Tensor, dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """What the network is given, the time it is told, and of each Gaussian field how much of F* is clean state, how
        much is noise, c_out, and the weight."""
        t = noised.t.cpu().numpy()
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        told = _put(t, next(iter(items_of(noised.state).values())).device)
        inputs, scales = dict(items_of(noised.state)), {}
        for name, x in items_of(noised.state).items():
            if name in self._kinds:
                continue
            c = coefficients(self._field(name).prediction or self.objective.prediction, t, alpha, sigma)
            c_in, c_noise, c_skip, c_out = (_put(value, x.device) for value in c)
            weight = torch.ones_like(c_out)
            if self.objective.weight != "network":
                w = loss.weight(self.objective.weight, self.process.log_snr(t), **self.objective.weight_options)
                weight = _put(w, x.device) * c_out.square()
            inputs[name] = rows_of(c_in, x).to(x) * x
            told = c_noise
            on_clean = (1 - c_skip * _put(alpha, x.device)) / c_out
            on_noise = -c_skip * _put(sigma, x.device) / c_out
            scales[name] = (on_clean, on_noise, c_out, weight)
        floating = next((x for x in inputs.values() if x.is_floating_point()), None)
        dtype = torch.float32 if floating is None else floating.dtype
        return like(noised.state, inputs), told.to(dtype), scales

    def _look(self, estimate: Tensor, aim: Tensor) -> Tensor:
        assert self._perceptual is not None
        if aim.dim() != 4 or aim.shape[1] not in (3, 4):
            shown = " x ".join(map(str, aim.shape[1:]))
            raise InvalidInput(
                "perceptual", self.objective.perceptual, f"0 for a state of {shown}: only pictures have looks"
            )
        return self._perceptual.to(aim.device).rgb(estimate, aim)

    def _field(self, name: str) -> FieldObjective:
        return self.objective.fields.get(name, FieldObjective())

    def _noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        e = torch.randn(x.shape, generator=generator, device=generator.device)
        if self.objective.offset_noise:
            shape = (*x.shape[:2], *[1] * (x.dim() - 2))
            whole = torch.randn(shape, generator=generator, device=generator.device)
            e = e + self.objective.offset_noise * whole
        if self.objective.shared_noise:
            same = torch.randn((*x.shape[:2], 1, *x.shape[3:]), generator=generator, device=generator.device)
            share = self.objective.shared_noise
            e = math.sqrt(share) * same + math.sqrt(1 - share) * e
        return e.to(x)

    def _scatter(self, x: Tensor, kind: Categorical, alpha: Tensor, generator: torch.Generator) -> Tensor:
        """Classes that keep their value with probability alpha, and are drawn from the noise otherwise."""
        kept, chosen = (
            torch.rand(x.shape, generator=generator, device=generator.device).to(x.device) for _ in range(2)
        )
        steps = _put(np.cumsum(kind.noise)[:-1], x.device).float()
        return torch.where(kept < rows_of(alpha, x), x, torch.bucketize(chosen, steps, right=True))


def drop(size: int, rates: Mapping[str, float], generator: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """Which samples of a batch go without which condition: (size,) True where one is dropped, by its name.

    Args:
        size: of the batch.
        rates: probability for each condition, apart from the others; ``all`` drops every one of them together.
        generator: of the draws.
    """
    together = generator.random(size) < rates.get("all", 0.0)
    return {name: (generator.random(size) < rate) | together for name, rate in rates.items() if name != "all"}


def _put(values: Any, device: torch.device) -> Tensor:
    """Numbers on a device, without waiting for what the device does."""
    return torch.from_numpy(np.array(values)).to(device, non_blocking=True)


def _categorical(noise: str | tuple[float, ...], classes: int) -> Categorical:
    from perrin.diffusion import categorical

    if isinstance(noise, tuple):
        return Categorical(classes, noise)
    if noise == "uniform":
        return categorical.uniform(classes)
    if noise == "absorbing":
        return categorical.absorbing(classes)
    raise InvalidInput("noise", noise, "uniform or absorbing, or the chance of each class")


def _mean(error: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """The weighted mean over samples of each sample's mean error over the elements that are there."""
    there = None if mask is None else _there(mask, error)
    if there is None:
        each = error.flatten(1).mean(1)
    else:
        there = there.to(error.dtype).expand(error.shape)
        each = (error * there).flatten(1).sum(1) / there.flatten(1).sum(1).clamp(min=1)
    return (weight.to(each) * each).mean()


def _there(mask: Tensor, error: Tensor) -> Tensor | None:
    """Which elements are there: of points (B, N, ...), of pairs (B, N, N, ...), or of the list of pairs (B, P)."""
    count = mask.shape[1]
    if error.dim() < 2 or error.shape[1] not in (count, count * (count - 1) // 2):
        return None
    if error.shape[1] != count:
        second, first = torch.tril_indices(count, count, -1, device=mask.device)
        return (mask[:, first] & mask[:, second]).reshape(*error.shape[:2], *[1] * (error.dim() - 2))
    there = mask.reshape(*mask.shape, *[1] * (error.dim() - 2))
    return there & there.transpose(1, 2) if error.dim() > 2 and error.shape[2] == count else there
