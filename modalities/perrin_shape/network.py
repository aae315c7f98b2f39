r"""The networks of shapes: a codec between oriented points and a small grid of latents, and a transformer over these.

The codec's encoder pools points into 16^3 cells, whatever their number and order, and gives 8^3 latents. Its decoder
says which of 16^3 cells have surface, and of each of those its 48 surfels (`perrin_shape.surfels`). Both mix 4^3 tokens
by attention; everything else is within a token, so a whole grid costs little more than its surface.

The transformer is `perrin.nn.DiffusionTransformer` over the latents, told where each lies, words and sizes and what a
picture shows as tokens to look at, and the latents of a part that is given.

References:
    Qi et al., PointNet (2017), for pooling that heeds no order; Rombach et al., Latent Diffusion Models (2022); Peebles
    and Xie, Scalable Diffusion Models with Transformers (2023).
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perrin.nn import Attention, DiffusionTransformer
from perrin_shape.surfels import DIRECTIONS, LEAST, SIDE, STEEPEST, VALUES, Surfels

__all__ = ["CELLS", "LATENTS", "PICTURE", "Decoded", "ShapeCodec", "ShapeTransformer", "located", "surfels_from"]

CELLS = SIDE // 2
"""Cells a side at which the codec says where surface is."""

LATENTS = 8
"""Latents a side."""

TOKENS = 4
COLOUR = 3
"""Channels of a latent that are its colour."""

PARTS = 8 * DIRECTIONS
"""Surfels of a cell."""

PICTURE = (16, 320)
"""Tokens of a picture, and their channels."""

POSITIONS = 9
WIDE = 1 + VALUES
TINT = 2.0
"""What colours are multiplied by as latents, so that they are about as wide as the others."""


def pooled(x: Tensor) -> Tensor:
    """(B, S, S, S, C) to (B, S / 2, S / 2, S / 2, 8 C)."""
    b, s, _, _, c = x.shape
    x = x.view(b, s // 2, 2, s // 2, 2, s // 2, 2, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, s // 2, s // 2, s // 2, 8 * c)


def spread(x: Tensor) -> Tensor:
    """The other way."""
    b, s, _, _, c = x.shape
    x = x.view(b, s, s, s, 2, 2, 2, c // 8)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, 2 * s, 2 * s, 2 * s, c // 8)


class _Mixed(nn.Module):
    """Attention among tokens, then a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.forth = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        x = self.attention(x)
        return cast(Tensor, x + self.forth(x))


class _Rest(nn.Module):
    """A feed-forward layer added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return cast(Tensor, x + self.body(x))


class Decoded(NamedTuple):
    """What the decoder says of a grid.

    Attributes:
        features: (B, 16^3, C) of cells, for `ShapeCodec.surfels`.
        surface: (B, 16^3) logits that there is surface.
    """

    features: Tensor
    surface: Tensor


class ShapeCodec(nn.Module):
    """See the module.

    Args:
        channels: of a latent; the last three are the mean colour of its points, or where it has none, of all.
        cell: channels of one of 16^3 cells.
        block: channels of one of 8^3.
        width: of one of 4^3 tokens.
        hidden: inner width of what says surfels.
        heads: attention heads.
        noise: deviation of what is added to latents in training, so that what is near them decodes alike.

    Attributes:
        mean, deviation: of the latents of real shapes, by channel; `encode` and `decode` standardise by them.
    """

    def __init__(
        self, channels: int = 11, cell: int = 48, block: int = 96, width: int = 96, hidden: int = 128, heads: int = 4,
        noise: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels, self.cell, self.noise = channels, cell, noise
        self.points = nn.Sequential(nn.Linear(15, 64), nn.SiLU(), nn.Linear(64, cell), nn.SiLU())
        self.up_block = nn.Sequential(nn.Linear(8 * (cell + 1), block), _Rest(block))
        self.up_token = nn.Linear(8 * block, width)
        self.place_in = nn.Parameter(torch.randn(TOKENS**3, width) * 0.02)
        self.mix_in = _Mixed(width, heads)
        self.to_latent = nn.Linear(width, 8 * (channels - COLOUR))
        self.direct_in = nn.Linear(block, channels - COLOUR)
        self.from_latent = nn.Linear(8 * channels, width)
        self.place_out = nn.Parameter(torch.randn(TOKENS**3, width) * 0.02)
        self.mix_out = nn.ModuleList([_Mixed(width, heads), _Mixed(width, heads)])
        self.down_block = nn.Linear(width, 8 * block)
        self.direct_out = nn.Linear(channels, block)
        self.rest = _Rest(block)
        self.down_cell = nn.Linear(block, 8 * cell)
        self.surface = nn.Linear(cell, 1)
        self.inner = nn.Linear(cell + COLOUR, hidden)
        self.outer = nn.Linear(hidden, PARTS * WIDE)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        nn.init.constant_(self.surface.bias, -2.0)
        with torch.no_grad():
            self.outer.bias.view(PARTS, WIDE)[:, 0] = -2.0

    def encode(self, points: Tensor, normals: Tensor, colours: Tensor) -> Tensor:
        """Standardised latents (B, channels, 8, 8, 8) of points (B, n, 3) within the unit ball.

        Args:
            points: positions.
            normals: of length one; zeros where a point is none, which a batch of clouds of different lengths has.
            colours: from -1 to 1.
        """
        z = self._raw(points, normals, colours)
        z = (z - self.mean) / self.deviation
        return z.permute(0, 4, 1, 2, 3).contiguous()

    def decode(self, latents: Tensor) -> Decoded:
        """The cells of standardised latents (B, channels, 8, 8, 8)."""
        return self._cells(latents.permute(0, 2, 3, 4, 1) * self.deviation + self.mean)

    def surfels(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of cells (R, C): logits (R, 48) that a surfel is there, and its numbers (R, 48, 11)."""
        out = self.outer(F.silu(self.inner(features))).float().unflatten(-1, (PARTS, WIDE))
        colours = out[..., -COLOUR:] + features[:, None, -COLOUR:]
        return out[..., 0], torch.cat([out[..., 1:-COLOUR], colours], -1)

    def forward(self, points: Tensor, normals: Tensor, colours: Tensor) -> tuple[Decoded, Tensor]:
        """What is decoded of the noised latents of points, and these latents as they are (B, 8, 8, 8, channels)."""
        z = self._raw(points, normals, colours)
        return self._cells(z + self.noise * torch.randn_like(z) if self.training else z), z

    def _raw(self, points: Tensor, normals: Tensor, colours: Tensor) -> Tensor:
        there = (normals.abs().sum(-1) > 0).to(points)
        place = ((points.float() + 1) * (CELLS / 2)).clamp(0, CELLS - 1e-3)
        cell = place.floor()
        within = place - cell - 0.5
        turned = torch.cat([within, within.square(), (2 * torch.pi * within).sin(), normals, colours], -1)
        told = self.points(turned) * there[..., None]
        index = (cell * torch.tensor([CELLS**2, CELLS, 1.0], device=points.device)).sum(-1).long()
        index = index + torch.arange(len(points), device=points.device)[:, None] * CELLS**3
        told = torch.cat([told.float(), there[..., None].float()], -1).flatten(0, 1)
        sums = told.new_zeros(len(points) * CELLS**3, told.shape[1]).index_add_(0, index.flatten(), told)
        number = sums[:, -1:]
        mean = sums[:, :-1] / number.clamp(min=1)
        total = there.sum(1).clamp(min=1).repeat_interleave(CELLS**3)[:, None]
        grid = torch.cat([mean, (number * 1000 / total).log1p()], 1).view(-1, CELLS, CELLS, CELLS, self.cell + 1)
        blocks = self.up_block(pooled(grid))
        tokens = self.up_token(pooled(blocks)).flatten(1, 3) + self.place_in
        tokens = self.mix_in(tokens).unflatten(1, (TOKENS, TOKENS, TOKENS))
        shape = (spread(self.to_latent(tokens)) + self.direct_in(blocks)).float()
        return torch.cat([shape, TINT * self._tints(place, there, colours)], -1)

    def _tints(self, place: Tensor, there: Tensor, colours: Tensor) -> Tensor:
        """(B, 8, 8, 8, 3) mean colours of points at ``place``, in cells of 16^3; where there is none, that of all."""
        index = ((place / 2).floor() * place.new_tensor([LATENTS**2, LATENTS, 1.0])).sum(-1).long()
        index = index + torch.arange(len(place), device=place.device)[:, None] * LATENTS**3
        given = torch.cat([colours.float() * there[..., None], there[..., None].float()], -1)
        sums = given.new_zeros(len(place) * LATENTS**3, COLOUR + 1).index_add_(0, index.flatten(), given.flatten(0, 1))
        sums = sums.view(len(place), LATENTS, LATENTS, LATENTS, COLOUR + 1)
        whole = sums.sum((1, 2, 3), keepdim=True)
        sums = torch.where(sums[..., -1:] > 0, sums, whole)
        return sums[..., :-1] / sums[..., -1:].clamp(min=1)

    def _cells(self, z: Tensor) -> Decoded:
        tokens = self.from_latent(pooled(z)).flatten(1, 3) + self.place_out
        for layer in self.mix_out:
            tokens = layer(tokens)
        blocks = spread(self.down_block(tokens.unflatten(1, (TOKENS, TOKENS, TOKENS)))) + self.direct_out(z)
        cells = F.silu(spread(self.down_cell(self.rest(blocks)))).flatten(1, 3)
        tint = spread((z[..., -COLOUR:] / TINT).repeat(1, 1, 1, 1, 8)).flatten(1, 3)
        return Decoded(torch.cat([cells, tint.to(cells)], -1), self.surface(cells)[..., 0].float())


def located(index: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of surfels by their `Surfels.index`: the cell of 16^3, and which of its 48."""
    cell, direction = np.divmod(index, DIRECTIONS)
    x, y, z = cell // SIDE**2, cell // SIDE % SIDE, cell % SIDE
    coarse = (x // 2 * CELLS + y // 2) * CELLS + z // 2
    return coarse, ((x % 2 * 2 + y % 2) * 2 + z % 2) * DIRECTIONS + direction


@torch.no_grad()
def surfels_from(codec: ShapeCodec, latents: Tensor) -> list[Surfels]:
    """The surfels of standardised latents (B, channels, 8, 8, 8)."""
    decoded = codec.decode(latents)
    out = []
    for features, surface in zip(decoded.features, decoded.surface, strict=True):
        cells = torch.nonzero(surface > 0).flatten()
        there, values = codec.surfels(features[cells])
        row, part = torch.nonzero((there > 0) & (values[..., 0] > LEAST), as_tuple=True)
        chosen = values[row, part].cpu().numpy().astype(np.float32)
        chosen[:, 1:4] = chosen[:, 1:4].clip(-0.5, 0.5)
        chosen[:, 4:6] = chosen[:, 4:6].clip(0, 0.3)
        chosen[:, 6:8] = chosen[:, 6:8].clip(-STEEPEST, STEEPEST)
        coarse, part_ = cells[row].cpu().numpy(), part.cpu().numpy()
        child, direction = np.divmod(part_, DIRECTIONS)
        x, y, z = coarse // CELLS**2 * 2, coarse // CELLS % CELLS * 2, coarse % CELLS * 2
        fine = ((x + child // 4) * SIDE + y + child // 2 % 2) * SIDE + z + child % 2
        order = np.argsort(fine * DIRECTIONS + direction)
        out.append(Surfels((fine * DIRECTIONS + direction)[order], chosen[order]))
    return out


class ShapeTransformer(nn.Module):
    """``network(x, t, ...)`` over latents (B, channels, 8, 8, 8).

    Args:
        channels: of a latent.
        context: channels of a token of words.
        classes: labels; label ``classes`` stands for none.
        narrow: channels that a picture's tokens pass through.
        options: of `perrin.nn.DiffusionTransformer`.
    """

    def __init__(
        self, channels: int = 11, context: int = 384, classes: int = 0, narrow: int = 64, **options: Any
    ) -> None:
        super().__init__()
        self.channels = channels
        self.body = DiffusionTransformer(
            channels=2 * channels + 1 + POSITIONS,
            out_channels=channels,
            context=context,
            classes=classes,
            dims=3,
            patch=LATENTS // TOKENS,
            **options,
        )
        self.picture = nn.Sequential(
            nn.LayerNorm(PICTURE[1]), nn.Linear(PICTURE[1], narrow), nn.Linear(narrow, context)
        )
        self.places = nn.Parameter(torch.randn(PICTURE[0], context) * 0.02)
        axis = (torch.arange(LATENTS) + 0.5) / LATENTS * 2 - 1
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        self.positions: Tensor
        self.register_buffer("positions", torch.cat([places, (torch.pi * places).sin(), (torch.pi * places).cos()]))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        context_mask: Tensor,
        label: Tensor,
        picture: Tensor,
        part: Tensor,
    ) -> Tensor:
        """One evaluation.

        Args:
            x: (B, channels, 8, 8, 8).
            t: (B,).
            context: (B, L, context) tokens of words and sizes.
            context_mask: (B, L) True where one counts.
            label: (B,).
            picture: (B, 16, 320) features of a picture; zeros: there is none.
            part: (B, channels + 1, 8, 8, 8) latents of a part that is given, and 1 where it has points; zeros: none.
        """
        context, context_mask, label, picture, part = (
            told.expand(len(x), *told.shape[1:]) for told in (context, context_mask, label, picture, part)
        )
        seen = picture.abs().sum((1, 2)) > 0
        tokens = torch.cat([context, (self.picture(picture) + self.places).to(context)], 1)
        mask = torch.cat([context_mask, seen[:, None].expand(-1, PICTURE[0])], 1)
        positions = self.positions.to(x).expand(len(x), *self.positions.shape)
        inputs = torch.cat([x, part.to(x), positions], 1)
        return cast(Tensor, self.body(inputs, t, context=tokens, context_mask=mask, label=label))
