"""Vocoders of other people: generators of HiFi-GAN's and BigVGAN's layout, with the names their checkpoints have.

Both stretch the spectrogram to samples by transposed convolutions; after each, blocks of dilated convolutions with
several kernel sizes are averaged. BigVGAN's activations are periodic, and computed at twice the rate between low-pass
filters, so that what they add does not fold.

References:
    Kong, Kim and Bae, HiFi-GAN (2020), section 2.2; Lee et al., BigVGAN (2023), sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import ModelError

__all__ = ["Generator", "plain"]

SLOPE = 0.1
WIDTH = 12
"""Taps of the low-pass filters of the activations."""


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without weight normalisation: of each ``weight_g`` and ``weight_v``, g v / |v|.

    The names of both of torch's ways are read.
    """
    out = {}
    pairs = {".weight_g": ".weight_v", ".parametrizations.weight.original0": ".parametrizations.weight.original1"}
    for name, tensor in state.items():
        for size, direction in pairs.items():
            if name.endswith(size):
                v = state[name.removesuffix(size) + direction].float()
                norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
                out[name.removesuffix(size) + ".weight"] = tensor.float() * v / norm
                break
            if name.endswith(direction):
                break
        else:
            out[name] = tensor.float()
    return out


def _sinc(cutoff: float, half_width: float, taps: int) -> Tensor:
    """(1, 1, taps) of a Kaiser-windowed low-pass filter that sums to one."""
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    beta = 0.1102 * (attenuation - 8.7) if attenuation > 50 else 0.0
    if 21 <= attenuation <= 50:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    window = torch.kaiser_window(taps, periodic=False, beta=beta)
    time = torch.arange(-(taps // 2), taps // 2) + 0.5 if taps % 2 == 0 else torch.arange(taps) - taps // 2
    kernel = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return (kernel / kernel.sum()).view(1, 1, -1)


class _Filter(nn.Module):
    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", _sinc(0.25, 0.3, WIDTH))


class _Down(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()


class _Snake(nn.Module):
    """x + sin^2(a x) / b, with a = e^alpha and b = e^beta, or a where there is no beta."""

    def __init__(self, channels: int, beta: bool, logs: bool) -> None:
        super().__init__()
        self.logs = logs
        self.alpha = nn.Parameter(torch.zeros(channels) if logs else torch.ones(channels))
        self.beta = nn.Parameter(self.alpha.detach().clone()) if beta else None

    def forward(self, x: Tensor) -> Tensor:
        a = self.alpha[:, None]
        b = a if self.beta is None else self.beta[:, None]
        if self.logs:
            a, b = a.exp(), b.exp()
        return x + torch.sin(a * x).square() / (b + 1e-9)


class _Smooth(nn.Module):
    """A periodic activation at twice the rate."""

    def __init__(self, channels: int, beta: bool, logs: bool) -> None:
        super().__init__()
        self.act = _Snake(channels, beta, logs)
        self.upsample, self.downsample = _Filter(), _Down()

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.upsample.filter.expand(channels, -1, -1)
        pad = WIDTH // 2 - 1
        side = pad * 2 + (WIDTH - 2) // 2
        wide = 2 * F.conv_transpose1d(F.pad(x, (pad, pad), mode="replicate"), kernel, stride=2, groups=channels)
        wide = self.act(wide[..., side : wide.shape[-1] - (pad * 2 + (WIDTH - 1) // 2)])
        kernel = self.downsample.lowpass.filter.expand(channels, -1, -1)
        padded = F.pad(wide, (WIDTH // 2 - 1, WIDTH // 2), mode="replicate")
        return F.conv1d(padded, kernel, stride=2, groups=channels)


def _conv(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class _Block(nn.Module):
    """Pairs of convolutions (``two``), or single ones, each with an activation before it."""

    def __init__(
        self, channels: int, kernel: int, dilations: Sequence[int], two: bool, snake: tuple[bool, bool] | None
    ) -> None:
        super().__init__()
        first = nn.ModuleList([_conv(channels, kernel, dilation) for dilation in dilations])
        if two:
            self.convs1 = first
            self.convs2 = nn.ModuleList([_conv(channels, kernel, 1) for _ in dilations])
        else:
            self.convs = first
        self.two = two
        count = len(dilations) * (2 if two else 1)
        self.activations = None
        if snake is not None:
            self.activations = nn.ModuleList([_Smooth(channels, *snake) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.convs1, self.convs2, strict=True) if self.two else ((conv, None) for conv in self.convs)
        for number, (first, second) in enumerate(pairs):
            each = 2 if second is not None else 1
            h = first(self._active(x, number * each))
            if second is not None:
                h = second(self._active(h, number * each + 1))
            x = x + h
        return x

    def _active(self, x: Tensor, number: int) -> Tensor:
        return F.leaky_relu(x, SLOPE) if self.activations is None else cast(Tensor, self.activations[number](x))


class Generator(nn.Module):
    """``generator(logs)``: waveforms of the logarithms of mel spectrograms.

    Args:
        config: as the ``config.json`` beside such a checkpoint has it.

    Raises:
        ModelError: a setting that these layouts need is missing.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        try:
            rates, kernels = config["upsample_rates"], config["upsample_kernel_sizes"]
            channels, bands = int(config["upsample_initial_channel"]), int(config["num_mels"])
            sizes, dilations = config["resblock_kernel_sizes"], config["resblock_dilation_sizes"]
            two = str(config["resblock"]) == "1"
        except KeyError as error:
            raise ModelError(f"a vocoder's config.json without {error}: wanted that of HiFi-GAN or BigVGAN") from None
        kind = config.get("activation")
        snake = None if kind is None else (kind == "snakebeta", bool(config.get("snake_logscale", True)))
        self.hop = math.prod(rates)
        self.kernels, self.big, self.tanh = len(sizes), snake is not None, bool(config.get("use_tanh_at_final", True))
        self.conv_pre = nn.Conv1d(bands, channels, 7, padding=3)
        ups, blocks = [], []
        for rate, kernel in zip(rates, kernels, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            ups.append(nn.ModuleList([up]) if self.big else up)
            channels //= 2
            blocks += [_Block(channels, size, steps, two, snake) for size, steps in zip(sizes, dilations, strict=True)]
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(blocks)
        self.activation_post = _Smooth(channels, *snake) if snake is not None else None
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=bool(config.get("use_bias_at_final", True)))

    def forward(self, logs: Tensor) -> Tensor:
        """(B, frames * hop) of (B, bands, frames)."""
        x = self.conv_pre(logs)
        for number, up in enumerate(self.ups):
            x = cast(nn.ModuleList, up)[0](x) if self.big else up(F.leaky_relu(x, SLOPE))
            some = self.resblocks[number * self.kernels : (number + 1) * self.kernels]
            x = torch.stack([block(x) for block in some]).mean(0)
        x = F.leaky_relu(x) if self.activation_post is None else self.activation_post(x)
        x = self.conv_post(x)
        return (torch.tanh(x) if self.tanh else x.clamp(-1, 1))[:, 0]
