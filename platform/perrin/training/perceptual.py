r"""How different two pictures look: LPIPS, with trunks that do not mind a shift by a pixel.

.. math:: d(x, y) = \sum_l \operatorname{mean}_{hw}\; w_l \cdot (\hat f_l(x) - \hat f_l(y))^2

with features f_l of a classifier's five stages, of unit length over channels, and weights w_l fitted to people's
judgement. The weights are those of PyPI's ``stlpips-pytorch`` (ST-LPIPS, BSD-2-Clause); of that package only the file
of tensors is read.

References:
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (2018), eq. 1;
    Ghildyal and Liu, Shift-tolerant Perceptual Similarity Metric (2022), section 4.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput, NotInstalled

__all__ = ["Perceptual", "Trunk"]

Trunk = Literal["alex", "vgg"]


class _Blur(nn.Module):
    """Every second pixel after a binomial filter (Zhang, 2019), with mirrors at the edges."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (line[:, None] * line).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), self.filt, stride=2, groups=x.shape[1])


def _convolution(inner: int, outer: int, side: int) -> list[nn.Module]:
    # AlexNet's first one is padded by 2, the others so that they keep the size.
    return [nn.Conv2d(inner, outer, side, padding=2 if side == 11 else side // 2), nn.ReLU()]


def _alex() -> list[list[nn.Module]]:
    first, relu = _convolution(3, 64, 11)
    return [
        [first, _Blur(64), relu],
        [nn.MaxPool2d(3, 1), _Blur(64), *_convolution(64, 192, 5)],
        [nn.MaxPool2d(3, 1), _Blur(192), *_convolution(192, 384, 3)],
        _convolution(384, 256, 3),
        _convolution(256, 256, 3),
    ]


def _vgg() -> list[list[nn.Module]]:
    stages: list[list[nn.Module]] = []
    inner = 3
    for outer, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stage: list[nn.Module] = [nn.MaxPool2d(2, 1), _Blur(inner)] if stages else []
        for _ in range(count):
            stage += _convolution(inner, outer, 3)
            inner = outer
        stages.append(stage)
    return stages


class Perceptual(nn.Module):
    """The distance of pictures x and y, (B, 3, H, W) in -1..1: (B,), zero for equal ones. Its weights do not learn.

    Made for pictures of 64 pixels a side and more. ``alex`` is the quicker one, ``vgg`` the usual one to train with.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: Trunk = "alex") -> None:
        """Read the weights.

        Raises:
            NotInstalled: the package that has them is missing.
            InvalidInput: there is no such trunk.
        """
        super().__init__()
        stages = {"alex": _alex, "vgg": _vgg}.get(trunk)
        if stages is None:
            raise InvalidInput("trunk", trunk, "alex or vgg")
        self.stages, self.heads = nn.ModuleList(), nn.ParameterList()
        state = torch.load(_file(trunk), map_location="cpu", weights_only=True)
        self.register_buffer("mean", state["scaling_layer.shift"])
        self.register_buffer("deviation", state["scaling_layer.scale"])
        number = 0  # the file numbers the layers through all stages
        for place, layers in enumerate(stages()):
            stage = nn.Sequential()
            for layer in layers:
                prefix = f"net.slice{place + 1}.{number}."
                own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                layer.load_state_dict(own)
                stage.append(layer)
                number += 1
            self.stages.append(stage)
            self.heads.append(state[f"lin{place}.model.1.weight"])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See the class."""
        total = torch.zeros(len(x), device=x.device)
        both = (torch.cat([x, y]).float() - self.mean) / self.deviation
        for stage, head in zip(self.stages, self.heads, strict=True):
            both = stage(both)
            one, other = (both * torch.rsqrt(both.square().sum(1, keepdim=True) + 1e-16)).chunk(2)
            total = total + F.conv2d((one - other).square(), head).mean((1, 2, 3))
        return total

    def rgb(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean distance of pictures whose first three channels are colours, (B, C, H, W): a scalar to minimise."""
        return cast(Tensor, self(x[:, :3], y[:, :3])).mean()


def _file(trunk: str) -> Path:
    spec = find_spec("stlpips_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("the perceptual loss", "perceptual")
    return Path(spec.submodule_search_locations[0]) / "weights" / "vST0.0" / f"{trunk}_shift_tolerant.pth"
