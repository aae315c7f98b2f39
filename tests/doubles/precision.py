"""Runs in float64, for what is compared over a whole trajectory.

At every row of a run a class of each atom and of each pair is drawn, by which of two numbers is larger. Two ways of
computing one molecule differ by the order of their sums: in float32 by enough that one class in some millions is
another, on one processor or the next, and then all that follows is. In float64 that does not come to pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from perrin import diffusion as d

__all__ = ["exactly", "in_float64"]


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    return {name: _widened(one) for name, one in value.items()} if type(value) is dict else value


@contextmanager
def exactly(runtime: Any) -> Iterator[None]:
    """What a runtime of molecules makes in this block is computed in float64."""
    maker, networks = runtime._maker, {}
    for denoiser in (maker._denoiser, maker._extended):
        networks[denoiser.network] = denoiser.network.fast
    try:
        with ExitStack() as stack:
            for tempered in networks:
                tempered.fast = False
                stack.enter_context(in_float64(tempered.network))
            yield
    finally:
        for tempered, fast in networks.items():
            tempered.fast = fast


@contextmanager
def in_float64(network: nn.Module) -> Iterator[None]:
    """``network``, and every run that begins in this block, in float64; the weights are as they were afterwards."""
    hook = network.register_forward_pre_hook(
        lambda _, values, named: (tuple(map(_widened, values)), _widened(named)), with_kwargs=True
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(d, "start", functools.partial(d.start, dtype=torch.float64))
            network.double()
            yield
    finally:
        network.float()
        hook.remove()
