r"""The video network: an image transformer that stays as it is, and layers along time between its blocks.

The image network draws one thing in the middle of its picture. A layer along time is told where that thing is to be,
frame by frame (a pose, see `perrin_video.motions`), and sees the frame in the thing's own coordinates

.. math:: q = R_{-\theta} (p - m) / s

for a place p, the thing's middle m, size s and angle theta. Attention along time then has rotary positions of
(time, q): a part of the thing finds itself in other frames wherever it has gone. What a layer adds is zero at first, so
that the network gives, frame by frame, what the image network gives, until training says otherwise; `still` switches
all of it off.

Beside the frames the network sees a portrait: a clean picture of the thing, as the image model draws it. Each frame may
have a time of its own, and some may be given: they are told to the network as clean, and what it says of them is what
they are.

References:
    Ho et al., Video Diffusion Models (2022), section 3; Blattmann et al., Align your Latents (2023), section 3.1;
    Patrick et al., Keeping Your Eye on the Ball: Trajectory Attention (2021); Chen et al., Diffusion Forcing (2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn import DiffusionTransformer
from perrin.nn.attention import attend, merge_heads, rotary, rotate, split_heads, unit
from perrin.nn.temporal import fold_frames, unfold_frames
from perrin.nn.transformer import checkpointed, patches, time_features, unpatches

__all__ = ["MotionLayers", "MotionReader", "VideoTransformer"]

POSE = 7
BEAT = 8.0
"""Positions along time are counted in so many a second."""

WAVES = 3
"""Frequencies, each twice the last, of a coordinate of the thing."""


class MotionReader(nn.Module):
    """What a caption says of motion: tokens and seconds to poses.

    Args:
        context: channels of a token.
        queries: how many things are asked of the tokens.
        width: of the answer to each.
        hidden: inner width.
    """

    def __init__(self, context: int = 384, queries: int = 4, width: int = 48, hidden: int = 160) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(context)
        self.score = nn.Linear(context, queries)
        self.value = nn.Linear(context, queries * width)
        self.queries = queries
        self.mix = nn.Sequential(
            nn.Linear(queries * width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 96)
        )
        self.inner = nn.Linear(96 + 64, hidden)
        self.outer = nn.Sequential(
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, POSE),
        )

    def forward(self, context: Tensor, mask: Tensor, seconds: Tensor) -> Tensor:
        """(B, F, 7) poses.

        Args:
            context: (B, L, context) tokens; or (B, F, L, context), other ones for each frame.
            mask: (B, L), or (B, F, L), True where there is a token.
            seconds: (B, F).
        """
        h = self.norm(context)
        weight = self.score(h).masked_fill(~mask[..., None], -1e4).softmax(-2)
        value = self.value(h).unflatten(-1, (self.queries, -1))
        heard = self.mix((weight[..., None] * value).sum(-3).flatten(-2))
        heard = heard[:, None].expand(-1, seconds.shape[1], -1) if context.dim() == 3 else heard
        raw = self.outer(self.inner(torch.cat([heard, beats(seconds)], -1)))
        turned = F.normalize(raw[..., 3:5] + raw.new_tensor([1e-6, 0.0]), dim=-1)
        return torch.cat([raw[..., :3], turned, raw[..., 5:]], -1)


def beats(seconds: Tensor) -> Tensor:
    """(B, F) to (B, F, 64): sines and cosines from one turn in 16 s to two a second, and the seconds themselves."""
    rates = torch.linspace(math.log(1 / 16), math.log(2.0), 31, device=seconds.device).exp() * (2 * math.pi)
    angle = seconds[..., None] * rates
    return torch.cat([seconds[..., None] / 4, (seconds[..., None] / 2).clamp(0, 1), angle.cos(), angle.sin()], -1)


def own_coordinates(pose: Tensor, grid: tuple[int, int]) -> Tensor:
    """The places of a grid as the thing sees them, 1 at the edge of what fills a frame: (..., 7) to (..., N, 2)."""
    down, right = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=pose.device, dtype=pose.dtype) for n in grid)
    y, x = (part.flatten() for part in torch.meshgrid(down, right, indexing="ij"))
    px, py, log_size, cos, sin, _, apart = (part[..., None] for part in pose.unbind(-1))
    x, y = x - px, y - py
    x = x - torch.where(x < 0, -apart, apart)
    scale = torch.exp(-log_size)
    return torch.stack([(cos * x + sin * y) * scale, (cos * y - sin * x) * scale], -1)


def waves(q: Tensor) -> Tensor:
    """Coordinates (..., 2) to (..., 4 WAVES + 3): themselves, how far out, and waves of them."""
    near = q.clamp(-2.5, 2.5)
    rates = math.pi / 2 * 2.0 ** torch.arange(WAVES, device=q.device, dtype=q.dtype)
    angle = (near[..., None] * rates).flatten(-2)
    return torch.cat([near, near.abs().amax(-1, keepdim=True), angle.cos(), angle.sin()], -1)


class _Layer(nn.Module):
    """Attention along time, then a gated feed-forward layer; both told the pose, both zero at first."""

    def __init__(self, width: int, heads: int, inner: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.gain = nn.Parameter(torch.full((heads, 1, inner // heads), float(inner // heads) ** 0.5))
        self.table = nn.Parameter(torch.zeros(4, width))
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, told: Tensor, place: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None, frames: int
    ) -> Tensor:
        """(B F, N, width) to the same; the rest as `MotionLayers.prepare` has it."""
        shift1, scale1, shift2, scale2 = (told + self.table).to(x).unsqueeze(2).unbind(1)
        width, places = x.shape[-1:], x.shape[1]
        h = torch.addcmul(shift1, F.layer_norm(x, width), 1 + scale1) + place
        q, k, v = (
            split_heads(part.unflatten(0, (-1, frames)).flatten(1, 2), self.heads) for part in self.qkv(h).chunk(3, -1)
        )
        q, k = rotate(unit(q) * self.gain.to(q), *angles), rotate(unit(k), *angles)
        seen = merge_heads(attend(q, k, v, mask, scale=1.0))
        x = x + self.out(seen).unflatten(1, (frames, places)).flatten(0, 1)
        h = torch.addcmul(shift2, F.layer_norm(x, width), 1 + scale2) + place
        value, gate = self.up(h).chunk(2, -1)
        out: Tensor = x + self.down(value * F.silu(gate))
        return out


class MotionLayers(nn.Module):
    """The layers along time of one image network: what `emoji-motion` ships.

    Args:
        width: of a token of the image network.
        depth: layers: one before each of its blocks, and one after the last.
        heads, inner: heads of attention and their channels together.
        hidden: of the feed-forward layers.
        causal: a frame looks at itself and earlier ones.
    """

    def __init__(
        self,
        width: int = 240,
        depth: int = 7,
        heads: int = 5,
        inner: int = 160,
        hidden: int = 256,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.heads, self.head, self.causal = width, heads, inner // heads, causal
        self.time = nn.Sequential(nn.Linear(64 + POSE + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.told = nn.Linear(width, 4 * width)
        self.place = nn.Linear(4 * WAVES + 3, width)
        self.layers = nn.ModuleList([_Layer(width, heads, inner, hidden) for _ in range(depth)])
        self.reader = MotionReader()

    def prepare(
        self,
        t: Tensor,
        pose: Tensor,
        seconds: Tensor,
        kept: Tensor,
        pictures: int,
        causal: bool,
        grid: tuple[int, int],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """What every layer is told: (B F, 4, width), places (B F, N, width), angles, and who may look at whom.

        Args:
            t: (B, F) times of the diffusion.
            pose: (B, F, 7).
            seconds: (B, F).
            kept: (B, F) True where a frame is given.
            pictures: how many of the frames, the first, are no part of the clip.
            causal: a frame looks at itself, earlier ones and those pictures.
            grid: of a frame.
            dtype: of the tokens.
        """
        frames = t.shape[1]
        features = time_features(t.flatten(), 64, 1000.0)
        facts = torch.cat([features, pose.flatten(0, 1).clamp(-3, 3), kept.flatten()[:, None].to(features)], -1)
        told = self.told(self.time(facts.to(dtype))).unflatten(-1, (4, -1))
        own = own_coordinates(pose.float(), grid)
        place = self.place(waves(own).to(dtype)).flatten(0, 1)
        cos, sin = self._angles(own, seconds)
        mask = None
        if causal or self.causal:
            number = torch.arange(frames, device=t.device).clamp(min=pictures - 1)
            number = number.repeat_interleave(grid[0] * grid[1])
            mask = number[:, None] >= number
        return told, place, (cos.to(dtype), sin.to(dtype)), mask

    def _angles(self, own: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, (B, 1, F N, head / 2): a share of the pairs each for time and the thing's two axes."""
        each = self.head // 2 // 3
        slow = math.pi / 2 * torch.pow(100.0, -torch.arange(each, device=own.device) / each)
        position = torch.cat([(seconds * BEAT)[:, :, None, None].expand(*own.shape[:-1], 1), 4 * own.clamp(-3, 3)], -1)
        angle = (position[..., None] * slow).flatten(-2).flatten(1, 2)[:, None]
        angle = F.pad(angle, (0, self.head // 2 - 3 * each))
        return angle.cos(), angle.sin()


class VideoTransformer(nn.Module):
    """``network(x, t, context=..., portrait=..., pose=..., seconds=...)`` over clips of latents.

    Args:
        image: the image network; is not trained.
        motion: the layers along time.

    Attributes:
        still: the layers along time are off: it is the image network, frame by frame, bit for bit.
    """

    def __init__(self, image: DiffusionTransformer, motion: MotionLayers) -> None:
        super().__init__()
        self.image, self.motion = image.requires_grad_(False), motion
        self.still = False

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        context_mask: Tensor,
        label: Tensor | None = None,
        *,
        pose: Tensor,
        seconds: Tensor,
        portrait: Tensor | None = None,
        portrait_pose: Tensor | None = None,
        given: Tensor | None = None,
        kept: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """One evaluation: (B, C, F, h, w) to velocities of the same shape.

        Args:
            x: (B, C, F, h, w) clips.
            t: (B,) times, or (B, F).
            context: (B, L, context) tokens; or (B, F, L, context), other ones for each frame.
            context_mask: (B, L), or (B, F, L), True where a token counts.
            label: (B,) drawing style.
            pose: (B, F, 7).
            seconds: (B, F) since the clip began.
            portrait: (B, C, P, h, w) clean pictures of what is in the clip; frames look at them, and need not be like
                them.
            portrait_pose: (B, P, 7).
            given: (B, C, F, h, w) clean frames, of which those count that are kept.
            kept: (B, F) True where a frame is given.
            causal: a frame looks at itself, earlier ones and the portrait.
        """
        size, frames = len(x), x.shape[2]
        times = t[:, None].expand(-1, frames) if t.dim() == 1 else t
        if self.still:
            portrait = given = None
        held = torch.zeros(1, frames, dtype=torch.bool, device=x.device) if kept is None else kept
        held, pose, seconds = (part.expand(size, *part.shape[1:]) for part in (held, pose, seconds))
        noisy, late, wide = x, times[:, None, :, None, None], held[:, None, :, None, None]
        if given is not None:
            x, times = torch.where(wide, given.to(x), x), times.masked_fill(held, 0.0)
        pictures = 0
        if portrait is not None and portrait_pose is not None:
            pictures = portrait.shape[2]
            x = torch.cat([portrait.to(x).expand(size, -1, -1, -1, -1), x], 2)
            times = torch.cat([times.new_zeros(size, pictures), times], 1)
            pose = torch.cat([portrait_pose.to(pose).expand(size, -1, -1), pose], 1)
            seconds = torch.cat([seconds[:, :1].expand(-1, pictures), seconds], 1)
            held = torch.cat([held.new_ones(size, pictures), held], 1)
        tokens, known = self._words(context, context_mask, size, frames, pictures)
        out = self._clip(x, times, tokens, known, label, (pose, seconds, held, pictures, causal))
        made = unfold_frames(out, frames + pictures)[:, :, pictures:]
        if given is None:
            return made
        return torch.where(wide, (noisy - given.to(noisy)) / late.clamp(min=1e-4), made)

    def _clip(
        self,
        x: Tensor,
        times: Tensor,
        tokens: Tensor,
        known: Tensor,
        label: Tensor | None,
        told: tuple[Tensor, Tensor, Tensor, int, bool],
    ) -> Tensor:
        """(B F, C, h, w) of clips (B, C, F, h, w), each frame at its own time."""
        image, frames = self.image, x.shape[2]
        h = fold_frames(x)
        grid = (h.shape[2] // image.patch, h.shape[3] // image.patch)
        h = image.embed(patches(h, image.patch))
        labels = None if label is None else label.expand(len(x)).repeat_interleave(frames)
        c, keys, mask = image.condition(times.flatten(), tokens, known, labels, h.dtype)
        modulations = image.modulations(c)
        angle = rotary(grid, image.width // image.heads, x.device)
        angles = (angle.cos().to(h.dtype), angle.sin().to(h.dtype))
        layers = [] if self.still else list(self.motion.layers)
        more = None if self.still else self.motion.prepare(times, *told, grid, h.dtype)
        for number, block in enumerate(image.blocks):
            if more is not None:
                h = checkpointed(image.recompute, layers[number], h, *more, frames)
            h = checkpointed(image.recompute, block, h, modulations[number], keys, mask, angles, (1, grid))
        if more is not None:
            for layer in layers[len(image.blocks) :]:
                h = layer(h, *more, frames)
        shift, scale = image.last_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        return unpatches(image.out(F.layer_norm(h, (image.width,)) * (1 + scale) + shift), grid, image.patch)

    @staticmethod
    def _words(context: Tensor, mask: Tensor, size: int, frames: int, pictures: int) -> tuple[Tensor, Tensor]:
        """A row of tokens, and of which of them count, for every frame; a portrait hears what the first frame hears."""
        if context.dim() == 3:
            context, mask = (part[:, None].expand(-1, frames, *part.shape[1:]) for part in (context, mask))
        whole = (torch.cat([part[:, :1].expand(-1, pictures, *part.shape[2:]), part], 1) for part in (context, mask))
        tokens, known = (part.expand(size, *part.shape[1:]).flatten(0, 1) for part in whole)
        return tokens, known
