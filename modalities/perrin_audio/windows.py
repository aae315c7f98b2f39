r"""Sounds longer than the network's window: one state, seen through windows that overlap.

.. math:: D(x)_f = \frac{\sum_k w_k(f)\, D_k(x_{W_k})_f}{\sum_k w_k(f)}

Every window is told at which second of the sound it begins, so a note that is held goes on where a window ends. A sound
that dies away, such as that of a drum, is struck again instead: its windows lie side by side and each is a beginning.
All windows are one network call, and their overlaps agree at every row; so nothing drifts.

References:
    Bar-Tal et al., MultiDiffusion (2023), eq. 5; Evans et al., Fast Timing-Conditioned Latent Audio Diffusion (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin_audio.conditions import start_token

__all__ = ["Layout", "Windows", "layout_of"]

LATEST = 4.0
"""Seconds: no window that was trained begins later."""

STEADY = 1.0
"""Seconds: where a loop of a held note is."""


@dataclass(frozen=True)
class Layout:
    """Where windows lie.

    Attributes:
        frames: of the whole sound.
        width: frames of a window.
        first: the first frame of each.
        starts: the second of the sound that each is told to begin at.
        loops: the end goes on at the beginning.
    """

    frames: int
    width: int
    first: tuple[int, ...]
    starts: tuple[float, ...]
    loops: bool = False

    @property
    def single(self) -> bool:
        """One window is the whole sound."""
        return self.first == (0,) and self.frames == self.width and not self.loops


def layout_of(
    frames: int, width: int, frame_seconds: float, held: bool, start: float = 0.0, loops: bool = False
) -> Layout:
    """Windows over ``frames`` frames, a multiple of four, or one window if that is longer.

    Args:
        frames: that are wanted.
        width: of a window.
        frame_seconds: of a frame.
        held: the sound goes on for as long as it is asked to.
        start: seconds of the sound that are left out.
        loops: the end goes on at the beginning.
    """
    frames = max(width, -(-frames // 4) * 4)
    if held:
        hop = width * 3 // 4
        last = frames - (0 if loops else width)
        count = max(1, -(-last // hop)) if loops else -(-last // hop) + 1
        first = tuple(round(k * last / max(1, count if loops else count - 1)) // 4 * 4 for k in range(count))
        begins = tuple(STEADY if loops else min(LATEST, start + f * frame_seconds) for f in first)
        return Layout(frames, width, first, begins, loops)
    first = tuple(range(0, frames, width))
    return Layout(frames, width, first, tuple(start if k == 0 else 0.0 for k in range(len(first))), loops)


class Windows(nn.Module):
    """``network`` over a longer grid.

    Args:
        network: of windows (B, bands, width).
        layout: where they lie.
    """

    def __init__(self, network: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.network, self.layout = network, layout
        fade = torch.arange(1, layout.width // 4 + 1) / (layout.width // 4 + 1)
        self._weight = torch.ones(layout.width)
        if len(layout.first) > 1 or layout.loops:
            self._weight[: len(fade)], self._weight[-len(fade) :] = fade, fade.flip(0)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, context_mask: Tensor, label: Tensor) -> Tensor:
        """The windows' answers (B, bands, frames), each weighed least at its ends; the last may reach past the end."""
        o, count, batch = self.layout, len(self.layout.first), len(x)
        length = max(o.frames, o.first[-1] + o.width)
        places = torch.stack([torch.arange(f, f + o.width) for f in o.first])
        if o.loops:
            places = places % o.frames
        wide = x if o.loops else F.pad(x, (0, length - o.frames), mode="replicate")
        pieces = wide[..., places.to(x.device)].movedim(2, 1).flatten(0, 1)

        def each(part: Tensor) -> Tensor:
            return part.expand(batch, *part.shape[1:]).repeat_interleave(count, 0)

        starts = torch.tensor(o.starts, device=x.device).repeat(batch)
        token = start_token(starts).to(context)
        told = torch.cat([each(context), token], 1)
        mask = torch.cat([each(context_mask), torch.ones_like(token[..., 0], dtype=torch.bool)], 1)
        answers = self.network(
            pieces, t.expand(batch).repeat_interleave(count, 0), context=told, context_mask=mask, label=each(label)
        ).unflatten(0, (batch, count))
        total, weights = torch.zeros_like(x), x.new_zeros(o.frames)
        weight = self._weight.to(x)
        for k in range(count):
            inside = places[k] < o.frames
            where = places[k][inside].to(x.device)
            total.index_add_(2, where, (answers[:, k] * weight)[..., inside])
            weights.index_add_(0, where, weight[inside])
        return total / weights
