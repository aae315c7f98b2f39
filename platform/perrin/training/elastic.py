r"""Elastic weight consolidation: learn something new and hold on to what old data need.

.. math::
    L = L_{new} + \frac{\lambda}{2} \sum_i F_i\,(\theta_i - \theta^*_i)^2, \qquad
    F_i = \mathbb E_{old}\left[\left(\frac{\partial L}{\partial \theta_i}\right)^2\right]

F, the diagonal of the Fisher information, says which weights the old data's loss depends on.

References:
    Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (2017), eq. 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

__all__ = ["Anchor", "ElasticOptions"]


class ElasticOptions(BaseModel):
    """How firmly to hold on.

    Attributes:
        strength: lambda, relative to the mean of F, so that it means the same for every model.
        batches: of old data that F is measured on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strength: float = Field(1.0, gt=0)
    batches: int = Field(32, ge=1)


class Anchor:
    """Where the weights are held, and how firmly.

    Args:
        network: as it is before training.
        old_loss: the loss of batch number i of the old data; called with 0 to ``options.batches`` - 1.
        options: strength and batches.
    """

    def __init__(self, network: nn.Module, old_loss: Callable[[int], Tensor], options: ElasticOptions) -> None:
        self._named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.start = {name: p.detach().clone() for name, p in self._named.items()}
        total = {name: torch.zeros_like(p) for name, p in self._named.items()}
        for number in range(options.batches):
            gradients = torch.autograd.grad(old_loss(number), list(self._named.values()), allow_unused=True)
            for name, gradient in zip(self._named, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.detach().square()
        mean = torch.cat([t.flatten() for t in total.values()]).mean().clamp(min=1e-30)
        self.fisher = {name: t / mean for name, t in total.items()}
        self._strength = options.strength

    def penalty(self) -> Tensor:
        """What is added to the new loss, a scalar."""
        for name, p in self._named.items():  # the network may have moved since
            self.start[name], self.fisher[name] = self.start[name].to(p.device), self.fisher[name].to(p.device)
        parts = [(self.fisher[name] * (p - self.start[name]).square()).sum() for name, p in self._named.items()]
        return 0.5 * self._strength * torch.stack(parts).sum()
