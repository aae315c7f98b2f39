r"""Averaged weights whose memory grows with training, of any length, chosen afterwards.

.. math:: \hat\theta_t = \beta_t\,\hat\theta_{t-1} + (1 - \beta_t)\,\theta_t, \qquad \beta_t = (1 - 1/t)^{\gamma + 1}

weighs the weights of step tau by a power, p(tau) ~ tau^gamma; gamma follows from the wanted relative width of the
average (its standard deviation as a share of training). Two averages of different widths are kept, and snapshots of
both. Any other power's profile is nearly a combination of the snapshots' profiles, so its average is that combination
of their weights: the coefficients are those of the projection, A x = b with the inner products of the profiles.

References:
    Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (2024), eq. 1-2, section 3.1 and
    appendix C (inner products: eq. 150-153).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perrin.errors import InvalidInput, NotFound

__all__ = ["WIDTHS", "Averages", "gamma_of_width", "reconstruct", "reconstruction"]

WIDTHS = (0.05, 0.10)
"""Of the averages whose snapshots are kept."""

WIDEST = 0.28
"""No power-law average is wider: the standard deviation of a uniform one is 0.289."""

_NAME = re.compile(r"(\d+)-(0\.\d+)\.safetensors")


def gamma_of_width(width: float) -> float:
    """gamma whose power-law average has relative standard deviation ``width`` (0 < width <= 0.28).

    Raises:
        InvalidInput: no power-law average is that wide, or that narrow.
    """
    if not 0 < width <= WIDEST:
        raise InvalidInput("width", width, f"a share of training above 0, up to {WIDEST}")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots.real.max())


class Average:
    """One averaged copy of a network, in float32.

    Args:
        network: what to average.
        width: relative width of the average; 0 keeps the newest weights.
    """

    def __init__(self, network: nn.Module, width: float) -> None:
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)
        self.width = width
        self._gamma = gamma_of_width(width) if width > 0 else None

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (counted from 1)."""
        beta = (1 - 1 / step) ** (self._gamma + 1) if self._gamma is not None else 0.0
        mine, theirs = dict(self.network.named_parameters()), dict(network.named_parameters())
        torch._foreach_lerp_(list(mine.values()), [theirs[name].float() for name in mine], 1 - beta)
        for buffer, other in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(other)


class Averages:
    """The average that is evaluated and shipped, and those whose snapshots are kept.

    Args:
        network: what to average.
        width: of the first; 0 keeps the newest weights.
        snapshots: keep the others.
    """

    def __init__(self, network: nn.Module, width: float, snapshots: bool = False) -> None:
        self.main = Average(network, width)
        self.kept = tuple(Average(network, each) for each in WIDTHS) if snapshots else ()

    @property
    def network(self) -> nn.Module:
        """The first average's network."""
        return self.main.network

    def __iter__(self) -> Iterator[tuple[str, Average]]:
        yield "ema", self.main
        for average in self.kept:
            yield f"ema-{average.width:g}", average

    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` (counted from 1)."""
        for _, average in self:
            average.update(network, step)

    def snapshot(self, folder: Path, step: int) -> None:
        """Write the kept averages as they are after ``step``, in half precision."""
        for average in self.kept:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{step:08d}-{average.width:g}.safetensors"
            state = {name: _half(tensor) for name, tensor in average.network.state_dict().items()}
            save_file(state, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()


def reconstruction(
    steps: Sequence[float], widths: Sequence[float], step: float, width: float
) -> npt.NDArray[np.float64]:
    """How much of each snapshot makes the average of ``width`` after ``step``.

    Args:
        steps: when each snapshot was taken.
        widths: of the average it was taken of.
        step, width: of the wanted one.
    """
    t = np.asarray([*steps, step], np.float64)
    gamma = np.array([gamma_of_width(each) for each in (*widths, width)])
    products = _products(t[:, None], gamma[:, None], t[None], gamma[None])
    return np.asarray(np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=1e-12)[0], np.float64)


def _products(
    t: npt.NDArray[np.float64], g: npt.NDArray[np.float64], u: npt.NDArray[np.float64], h: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Inner products of the profiles (g + 1) tau^g / t^(g + 1) on [0, t] and the same of h on [0, u]."""
    ratio = np.where(t < u, (t / u) ** h, (u / t) ** g)
    out: npt.NDArray[np.float64] = (g + 1) * (h + 1) / (g + h + 1) * ratio / np.maximum(t, u)
    return out


def reconstruct(folder: Path, width: float, step: int | None = None) -> dict[str, Tensor]:
    """The averaged weights of any width, from the snapshots in ``folder``.

    Args:
        folder: where `Averages.snapshot` wrote.
        width: share of training, up to 0.28.
        step: after this step; by default after the last snapshot.

    Raises:
        NotFound: there are no snapshots.
        InvalidInput: the width is not one, or the step is after the last snapshot.
    """
    found = sorted(
        (int(match[1]), float(match[2]), path)
        for path in folder.glob("*.safetensors")
        if (match := _NAME.fullmatch(path.name))
    )
    if not found:
        raise NotFound(f"no snapshots of averages in {folder}: train with ema_snapshots: true")
    last = found[-1][0]
    step = last if step is None else step
    if not 0 < step <= last:
        raise InvalidInput("step", step, f"1 to {last}, the last snapshot")
    parts = reconstruction([f[0] for f in found], [f[1] for f in found], step, width)
    total: dict[str, Tensor] = {}
    for (_, _, path), part in zip(found, parts, strict=True):
        for name, tensor in load_file(path).items():
            if tensor.is_floating_point():
                total[name] = total.get(name, torch.zeros(())) + float(part) * tensor.double()
            else:
                total[name] = tensor
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in total.items()}
