"""What a network costs for a shape: parameters, floating-point operations, memory. Nothing is computed.

The network is called on torch's ``meta`` device, where tensors have shapes and no contents; every operation is counted
on the way, and so are the bytes that are alive between operations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one evaluation.

    Attributes:
        parameters: how many numbers the network has.
        flops: floating-point operations of its products and convolutions, two for a multiply-add.
        inference_bytes: most that is alive at once without gradients, besides the parameters.
        training_bytes: what is kept for the gradient, besides the parameters.
    """

    parameters: int
    flops: int
    inference_bytes: int
    training_bytes: int


class _Alive(TorchDispatchMode):
    """Adds up the storages that are alive, and remembers the most."""

    def __init__(self, ignored: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen = set(ignored)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._take(tensor)
        return out

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def cost_of(network: nn.Module, *inputs: Any, **named: Any) -> Cost:
    """What ``network(*inputs, **named)`` costs.

    Args:
        network: on the meta device, as are all tensors among the inputs.
        inputs: for the network.
        named: likewise.
    """
    kept: dict[int, int] = {}
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.no_grad(), _Alive(own) as alive:
        network(*inputs, **named)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(*inputs, **named)
    del out
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, int(counter.get_total_flops()), alive.most, sum(kept.values()))
