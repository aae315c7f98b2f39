r"""Frechet video distance: how far one set of clips is from another, in features of I3D.

The network is the RGB stream of Inflated 3D Inception, trained on Kinetics-400; its weights are in no package registry,
so they are the user's: a file of tensors under the names of the widely used PyTorch conversion (``Conv3d_1a_7x7.conv3d
.weight``, ``Mixed_3b.b0.bn.running_mean`` ..., ``logits.conv3d.weight``). Only tensors are read from it.

What a published figure means depends on its settings, which `PROTOCOLS` names: how many clips, of how many frames, at
which side, which layer. The features of a clip are the mean over time of the 400 logits before the softmax.

References:
    Unterthiner et al., Towards Accurate Generative Models of Video (2018), section 4 and appendix A; Carreira and
    Zisserman, Quo Vadis, Action Recognition? (2017), figure 3; Skorokhodov et al., StyleGAN-V (2022), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput, ModelError
from perrin.metrics.distances import frechet

__all__ = ["PROTOCOLS", "InflatedInception", "Protocol", "features", "fvd", "load_i3d"]


@dataclass(frozen=True)
class Protocol:
    """Settings of a published figure.

    Attributes:
        clips: in each set.
        frames: of a clip, taken one after the other from its beginning.
        side: pixels that a frame is resized to, bilinearly.
        source: where the settings are from.
    """

    clips: int
    frames: int
    side: int
    source: str


PROTOCOLS = {
    "fvd2018": Protocol(256, 15, 224, "Unterthiner et al. (2018), appendix A: 256 clips of 15 frames"),
    "styleganv": Protocol(2048, 16, 224, "Skorokhodov et al. (2022), section 4: FVD 2048 with 16 frames"),
}


class _Unit(nn.Module):
    """A convolution padded as TensorFlow does it, its batch norm and a rectifier."""

    def __init__(
        self, narrow: int, wide: int, side: int = 1, stride: int = 1, norm: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        self.side, self.stride = side, stride
        self.conv3d = nn.Conv3d(narrow, wide, side, stride, bias=bias)
        self.bn = nn.BatchNorm3d(wide, eps=1e-3) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv3d(_padded(x, (self.side,) * 3, (self.stride,) * 3))
        return h if self.bn is None else F.relu(self.bn(h))


def _padded(x: Tensor, sides: tuple[int, int, int], strides: tuple[int, int, int]) -> Tensor:
    edges = [
        max((-(-length // stride) - 1) * stride + side - length, 0)
        for length, side, stride in zip(x.shape[2:], sides, strides, strict=True)
    ]
    return F.pad(x, [part for edge in reversed(edges) for part in (edge // 2, edge - edge // 2)])


class _Pool(nn.Module):
    def __init__(self, sides: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.sides, self.strides = sides, strides

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_padded(x, self.sides, self.strides), self.sides, self.strides)


class _Mixed(nn.Module):
    def __init__(self, narrow: int, wide: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = _Unit(narrow, wide[0])
        self.b1a, self.b1b = _Unit(narrow, wide[1]), _Unit(wide[1], wide[2], 3)
        self.b2a, self.b2b = _Unit(narrow, wide[3]), _Unit(wide[3], wide[4], 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(narrow, wide[5])

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(parts, 1)


_MIXED: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


class InflatedInception(nn.Module):
    """I3D: clips (B, 3, T, H, W) in [-1, 1], at least 9 frames of 224 pixels, to 400 logits (B, 400)."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
        self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
        for name, (narrow, wide) in _MIXED.items():
            setattr(self, name, _Mixed(narrow, wide))
        self.logits = _Unit(1024, classes, norm=False, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """The mean over time of the logits."""
        for name in ("Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3",
                     "Mixed_3b", "Mixed_3c", "MaxPool3d_4a_3x3", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e",
                     "Mixed_4f", "MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c"):  # fmt: skip
            x = getattr(self, name)(x)
        pooled = F.avg_pool3d(x, (2, 7, 7), 1)
        return cast(Tensor, self.logits(pooled).mean((2, 3, 4)))


def load_i3d(path: Path) -> InflatedInception:
    """The network with the weights in ``path``: safetensors, or a PyTorch file of tensors.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        network = InflatedInception(len(state["logits.conv3d.bias"]))
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except Exception as error:  # readers raise anything
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"{path}: wanted the tensors of I3D's RGB stream (see perrin_video.metrics.fvd): {reason}"
        ) from None
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def features(network: nn.Module, clips: Iterable[npt.NDArray[np.uint8]], protocol: Protocol) -> Tensor:
    """(N, 400) of clips uint8 (F, H, W, 3), under a protocol.

    Raises:
        InvalidInput: a clip has fewer frames than the protocol wants.
    """
    made = []
    for clip in clips:
        if len(clip) < protocol.frames:
            raise InvalidInput("clip", f"{len(clip)} frames", f"at least {protocol.frames}")
        x = torch.from_numpy(np.ascontiguousarray(clip[: protocol.frames, ..., :3])).permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (protocol.side, protocol.side), mode="bilinear", align_corners=False)
        made.append(network((x / 127.5 - 1).transpose(0, 1)[None])[0])
    return torch.stack(made)


def fvd(
    network: nn.Module,
    real: Iterable[npt.NDArray[np.uint8]],
    made: Iterable[npt.NDArray[np.uint8]],
    protocol: Protocol,
) -> float:
    """The distance of two sets of as many clips as the protocol says.

    Raises:
        InvalidInput: there are fewer; a distance of smaller sets is larger, and another figure.
    """
    sets = [features(network, clips, protocol) for clips in (real, made)]
    for found in sets:
        if len(found) < protocol.clips:
            raise InvalidInput("clips", len(found), f"{protocol.clips}, as the protocol says")
    return frechet(sets[0][: protocol.clips], sets[1][: protocol.clips])
