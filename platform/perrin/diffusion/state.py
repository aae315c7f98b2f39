"""What is sampled: a tensor, or named fields with a mask.

A molecule is positions, elements and bonds over the same atoms; a clip is frames; a cloud is points with colours.
`Fields` holds such tensors under one mask and adds, subtracts and scales like a tensor, so that guidance and solvers
are written once. The functions here are what must know about masks: norms, inner products and spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from perrin.errors import InvalidInput

__all__ = ["Fields", "Space", "State", "inner", "items_of", "like", "norm", "rows_of", "zero_centre"]


class Fields(Mapping[str, Tensor]):
    """Named tensors of one batch, (B, ...) each, and an optional mask (B, N) over their second axis.

    Arithmetic works field by field with numbers, with (B,)-shaped tensors turned by `like`, and with other `Fields` of
    the same names. Masked entries are kept at zero.
    """

    def __init__(self, tensors: Mapping[str, Tensor], mask: Tensor | None = None) -> None:
        if not tensors:
            raise InvalidInput("fields", {}, "at least one named tensor")
        sizes = {len(tensor) for tensor in tensors.values()}
        if len(sizes) > 1:
            raise InvalidInput("fields", sorted(sizes), "tensors of one batch size")
        self._tensors = dict(tensors)
        self.mask = mask

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def map(self, function: Callable[[Tensor], Tensor]) -> Fields:
        """``function`` of every tensor."""
        return Fields({name: function(tensor) for name, tensor in self._tensors.items()}, self.mask)

    def _with(self, other: Any, function: Callable[[Any, Any], Tensor]) -> Fields:
        if isinstance(other, Fields):
            if other.keys() != self.keys():
                raise InvalidInput("fields", list(other), f"the fields {list(self)}")
            return Fields({name: function(tensor, other[name]) for name, tensor in self._tensors.items()}, self.mask)
        return self.map(lambda tensor: function(tensor, other))

    def __add__(self, other: Any) -> Fields:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> Fields:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: Any) -> Fields:
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: Any) -> Fields:
        return self._with(other, lambda a, b: a / b)

    def __neg__(self) -> Fields:
        return self.map(torch.neg)

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"Fields({', '.join(f'{name}: {tuple(t.shape)}' for name, t in self._tensors.items())})"


State = Tensor | Fields
"""A tensor, or named fields."""

Space = Callable[[Tensor, Tensor | None], Tensor]
"""Projects a field (B, ...) with its mask (B, N) onto the space it lives in; applied to draws, estimates, steps."""


def items_of(x: State) -> dict[str, Tensor]:
    """The tensors of ``x`` by name; a plain tensor is called ''."""
    return {"": x} if isinstance(x, Tensor) else dict(x)


def like(x: State, tensors: Mapping[str, Tensor]) -> State:
    """``tensors`` as a state of the kind of ``x``: the inverse of `items_of`."""
    return tensors[""] if isinstance(x, Tensor) else Fields(tensors, x.mask)


def rows_of(values: Tensor, x: Tensor) -> Tensor:
    """(B,) numbers shaped to multiply ``x`` (B, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or x.dim() < 2 or x.shape[:2] != mask.shape:
        return x
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - 2)), x, torch.zeros((), dtype=x.dtype))


def inner(a: State, b: State) -> Tensor:
    """Inner product of each sample over all its fields: (B,). Masked entries do not count."""
    mask = a.mask if isinstance(a, Fields) else None
    others = items_of(b)
    parts = [(_masked(x, mask) * others[name]).flatten(1).sum(1) for name, x in items_of(a).items()]
    return torch.stack(parts).sum(0)


def norm(x: State) -> Tensor:
    """Euclidean length of each sample over all its fields: (B,). Masked entries do not count."""
    return inner(x, x).sqrt()


def zero_centre(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The space of point sets (B, N, D) whose mean is zero; masked points are zero (Hoogeboom et al., EDM, 2022)."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    kept = mask[..., None].to(x.dtype)
    mean = (x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)
    return (x - mean) * kept
