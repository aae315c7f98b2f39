"""AdamW whose state is spread over the processes of a run, as in stage 1 of ZeRO.

Each process keeps the two averages of its share of the parameters, steps these, and tells the others. For a checkpoint
the states come together on the first process's CPU, tensor by tensor, so that no device ever holds more than its share.

References:
    Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (2020), section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ShardedAdamW"]

_STATE = ("step", "exp_avg", "exp_avg_sq")


class ShardedAdamW:
    """`torch.optim.AdamW` for the processes that are joined just now; with gradients that are alike on all of them.

    Args:
        parameters: the same on every process, in the same order.
        options: of AdamW.

    Attributes:
        param_groups: AdamW's, of this process's share; its learning rate may be changed there.
    """

    def __init__(self, parameters: Iterable[Tensor], **options: Any) -> None:
        self._parameters = list(parameters)
        self._rank = dist.get_rank()
        loads = [0] * dist.get_world_size()
        self._owners = [0] * len(self._parameters)
        for number in sorted(range(len(self._parameters)), key=lambda n: -self._parameters[n].numel()):
            self._owners[number] = least = loads.index(min(loads))
            loads[least] += self._parameters[number].numel()
        self._own = [number for number, owner in enumerate(self._owners) if owner == self._rank]
        share = [self._parameters[number] for number in self._own]
        self._adamw = torch.optim.AdamW(share or [torch.zeros(0)], **options)
        self._stepped: set[int] = set()
        self.param_groups = self._adamw.param_groups

    def step(self) -> None:
        """Step this process's share, and bring every parameter to all."""
        self._stepped |= {number for number, p in enumerate(self._parameters) if p.grad is not None}
        self._adamw.step()
        waiting = []
        for p, owner in zip(self._parameters, self._owners, strict=True):
            sent = p.detach().contiguous()  # p itself, but where its channels are last
            waiting.append((p, sent, dist.broadcast(sent, owner, async_op=True)))
        for p, sent, work in waiting:
            work.wait()
            if sent.data_ptr() != p.data_ptr():
                p.detach().copy_(sent)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self._parameters:
            p.grad = None

    def state_dict(self) -> dict[str, dict[int, dict[str, Tensor]]]:
        """``{"state": {number of the parameter: step, exp_avg, exp_avg_sq}}`` on the first process, on its CPU.

        The others get none. Every process must call it.
        """
        state: dict[int, dict[str, Tensor]] = {}
        for number in sorted(self._stepped):
            p, owner = self._parameters[number], self._owners[number]
            if self._rank not in (0, owner):
                continue
            parts = {}
            for name in _STATE:
                tensor = self._part(p, name, mine=owner == self._rank)
                if owner != 0:
                    dist.recv(tensor, owner) if self._rank == 0 else dist.send(tensor, 0)
                parts[name] = tensor.cpu()
            if self._rank == 0:
                state[number] = parts
        return {"state": state}

    def load_state_dict(self, saved: Mapping[str, Mapping[int, Mapping[str, Tensor]]]) -> None:
        """Take over what `state_dict` gave the first process, or what AdamW of one process saved."""
        self._stepped = set(saved["state"])
        own = {place: saved["state"][n] for place, n in enumerate(self._own) if n in self._stepped}
        self._adamw.load_state_dict({"state": own, "param_groups": self._adamw.state_dict()["param_groups"]})
        self.param_groups = self._adamw.param_groups

    def _part(self, p: Tensor, name: str, mine: bool) -> Tensor:
        if mine:
            return torch.as_tensor(self._adamw.state[p][name], device=p.device).contiguous()
        step = name == "step"
        return torch.empty(() if step else p.shape, dtype=torch.float32 if step else p.dtype, device=p.device)
