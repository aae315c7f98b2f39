"""Clips longer than what the network was trained on: overlapping windows in every evaluation, one clip in the sampler.

A window is a part of the clip with as many frames as the network knows. All windows see the same portrait, so what is
drawn, and in which colours, cannot drift from one to the next; where two overlap, what they say fades from one into
the other. A loop is a circle of windows. Prompts that follow each other have a portrait each, and the clip is asked for
under both where one goes over into the next.

References:
    Bar-Tal et al., MultiDiffusion (2023), eq. 5; Wang et al., Gen-L-Video (2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from perrin.nn.tiling import tiles
from perrin_video.network import VideoTransformer

__all__ = ["Windowed"]

FRAMES = ("pose", "seconds", "given", "kept")
"""Conditions that have one entry a frame, along axis 1; of `given`, along axis 2."""


class Windowed(nn.Module):
    """`VideoTransformer` for clips of any length.

    Args:
        network: of clips of up to ``most`` frames.
        most: frames of a window.
        overlap: frames that two windows share at least.
    """

    def __init__(self, network: VideoTransformer, most: int = 16, overlap: int = 6) -> None:
        super().__init__()
        self.network, self.most, self.overlap = network, most, overlap

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        context_mask: Tensor,
        portrait: Tensor,
        portrait_pose: Tensor,
        share: Tensor,
        loop: bool = False,
        **condition: Any,
    ) -> Tensor:
        """One evaluation.

        Args:
            x: (B, C, F, h, w).
            t: (B,).
            context: (B, S, L, width) tokens of S prompts.
            context_mask: (B, S, L).
            portrait: (B, C, S, h, w) a picture for each.
            portrait_pose: (B, S, 7).
            share: (B, S, F) how much each prompt counts at each frame; they sum to one.
            loop: the last frame is followed by the first.
            condition: of `VideoTransformer`.
        """
        frames = x.shape[2]
        total, weights = torch.zeros_like(x), x.new_zeros(frames)
        for window, weight in self._windows(frames, loop, x):
            made = torch.zeros_like(x[:, :, window])
            for prompt in range(context.shape[1]):
                part = share[:, prompt][:, window]
                told = {
                    "context": context[:, prompt],
                    "context_mask": context_mask[:, prompt],
                    "portrait": portrait[:, :, prompt : prompt + 1],
                    "portrait_pose": portrait_pose[:, prompt : prompt + 1],
                    **{name: _cut(name, value, window) for name, value in condition.items()},
                }
                made = made + self.network(x[:, :, window], t, **told) * part[:, None, :, None, None]
            total[:, :, window] += made * weight[:, None, None]
            weights[window] += weight
        return total / weights[:, None, None]

    def _windows(self, frames: int, loop: bool, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Numbers of the frames of each window, and how much it counts at each."""
        if not loop and frames <= self.most:
            yield torch.arange(frames, device=x.device), x.new_ones(frames)
            return
        size = min(self.most, frames)
        near = torch.arange(1, size + 1, device=x.device, dtype=x.dtype)
        weight = torch.minimum(near, near.flip(0)).clamp(max=self.overlap)
        if loop:
            count = max(2, -(-frames // (size - self.overlap))) if frames > self.overlap else 1
            starts = [round(number * frames / count) for number in range(count)]
        else:
            starts = [begin for begin, _ in tiles(frames, size, self.overlap)]
        for start in starts:
            yield (start + torch.arange(size, device=x.device)) % frames, weight


def _cut(name: str, value: Any, window: Tensor) -> Any:
    if name not in FRAMES:
        return value
    return value[:, :, window] if name == "given" else value[:, window]
