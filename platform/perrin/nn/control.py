"""Control by a second grid (edges, depth, a scribble): a side network whose additions are zero at first.

The side network is a copy of the contracting half of a U-Net, or of the first blocks of a transformer; or a smaller
transformer of its own. It sees the state plus what an embedding makes of the control, and adds what comes out of each
block, through a layer that is zero before training, to the network beside it, which is not changed.

References:
    Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models (2023), section 3; Chen et al.,
    PixArt-delta (2024), section 3.2 for transformers; Zavadski et al., ControlNet-XS (2023), for small ones.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from perrin.errors import InvalidInput
from perrin.nn.attention import rotary
from perrin.nn.transformer import DiffusionTransformer, patches
from perrin.nn.unet import _CONVS, UNet

__all__ = ["Controlled", "SideNetwork"]


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _fits(own: DiffusionTransformer, network: UNet | DiffusionTransformer) -> bool:
    beside = isinstance(network, DiffusionTransformer) and own.patch == network.patch
    return beside and own.channels >= network.channels


class SideNetwork(nn.Module):
    """What a control adds to ``network``.

    Args:
        network: whose blocks are copied.
        channels: of the control, a grid as fine as the network's state or ``finer`` times as fine.
        blocks: how many blocks of a transformer are copied; a U-Net's contracting half always is.
        finer: the control's sides over the state's.
        own: a transformer instead of the copy, of the same patch, often narrower and without a context; it may have
            more channels than the state, which the control fills alone. What its last block gives is added behind all
            further blocks of ``network`` too.

    Raises:
        InvalidInput: ``own`` beside a U-Net, or of another patch or of fewer channels than ``network``.
    """

    def __init__(
        self,
        network: UNet | DiffusionTransformer,
        channels: int,
        blocks: int = 2,
        finer: int = 1,
        own: DiffusionTransformer | None = None,
    ) -> None:
        super().__init__()
        if own is not None and not _fits(own, network):
            raise InvalidInput("own", type(network).__name__, "a transformer beside it, of its patch and channels")
        base = copy.deepcopy(network) if own is None else own
        conv, inner = _CONVS[network.dims - 1], max(32, 0 if own is None else own.channels)
        self.look = nn.Sequential(
            conv(channels, inner, finer, stride=finer) if finer > 1 else conv(channels, inner, 3, padding=1),
            nn.SiLU(),
            conv(inner, inner, 3, padding=1),
            nn.SiLU(),
            _zero(conv(inner, base.channels, 3, padding=1)),
        )
        self.base = base
        if isinstance(base, UNet):
            del base.middle, base.up, base.norm, base.out
            self.zeros = nn.ModuleList([_zero(conv(width, width, 1)) for width in base.kept])
        else:
            if own is None:
                del base.blocks[blocks:]
            del base.last_modulation, base.out
            assert isinstance(network, DiffusionTransformer)
            places = len(base.blocks if own is None else network.blocks)
            self.zeros = nn.ModuleList([_zero(nn.Linear(base.width, network.width)) for _ in range(places)])

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        control: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        label: Tensor | None = None,
    ) -> list[Tensor]:
        """The ``residuals`` of the network beside, for a state ``x`` (B, channels, *grid) and its control."""
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.base.channels - x.shape[1])) + self.look(control)
        if isinstance(self.base, UNet):
            c = self.base.condition(t, context, context_mask, label, x.dtype)
            _, kept = self.base.contract(x, (c, context, context_mask, 1))
            return [zero(h) for zero, h in zip(self.zeros, kept, strict=True)]
        return self._blocks(self.base, x, t, context, context_mask, label)

    def _blocks(
        self,
        base: DiffusionTransformer,
        x: Tensor,
        t: Tensor,
        context: Tensor | None,
        context_mask: Tensor | None,
        label: Tensor | None,
    ) -> list[Tensor]:
        grid = tuple(side // base.patch for side in x.shape[2:])
        told = context if hasattr(base, "context") else None
        c, keys, mask = base.condition(t, told, context_mask, label, x.dtype)
        angle = rotary(grid, base.width // base.heads, x.device)
        angles = (angle.cos().to(x.dtype), angle.sin().to(x.dtype))
        h, seen = base.embed(patches(x, base.patch)), []
        for block, modulation in zip(base.blocks, base.modulations(c), strict=True):
            h = block(h, modulation, keys, mask, angles, (1, grid))
            seen.append(h)
        return [zero(seen[min(number, len(seen) - 1)]) for number, zero in enumerate(self.zeros)]


class Controlled(nn.Module):
    """``network`` with what a side network adds; called like it, with ``control`` besides.

    Args:
        network: is not trained.
        side: is.
    """

    def __init__(self, network: UNet | DiffusionTransformer, side: SideNetwork) -> None:
        super().__init__()
        self.network, self.side = network.requires_grad_(False), side

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        label: Tensor | None = None,
        control: Tensor | None = None,
        strength: float | Tensor = 1.0,
    ) -> Tensor:
        """One evaluation; ``strength`` (a number, or (B,)) scales what the control adds."""
        residuals: list[Tensor] = []
        if control is not None:
            added = self.side(x, t, control, context, context_mask, label)
            by = strength.view(-1, *[1] * (added[0].ndim - 1)) if isinstance(strength, Tensor) else strength
            residuals = [part * by for part in added]
        out: Tensor = self.network(x, t, context, context_mask, label, residuals)
        return out
